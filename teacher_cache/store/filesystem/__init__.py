"""Files and folders of a store on a disk: locks, secrets, links, full disks."""
