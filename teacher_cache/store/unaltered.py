"""At the door of every command that passes a store on or adds to it: is it what its root digest vouches for?

Small files alone are read; `verify` reads the rows too.
"""

from pathlib import Path

from .access import LocalFiles
from .format import SIGNATURE_FILE
from .ledger import read_record, read_unreadable
from .problems import GET_IT_AGAIN, AlteredStore
from .reader import TeacherStore, open_store
from .roots import ledger_root
from .signature import check_signature, is_signed


def require_unaltered(path: Path) -> TeacherStore:
    """Open a finished local store whose root digest is that of header, index, failures and ledger.

    A signature must be of that root digest; who made it is for `verify --signed-by` to say. Rows are not read.

    Raises:
        AlteredStore: something was changed behind sound digests.
        StoreError: it is no store, unfinished, or its index or ledger is damaged.
    """
    store = open_store(path)
    store.require_root()
    records = [read_record(path, shard) for shard in range(store.header.shards)]
    root = ledger_root(store.header, records, read_unreadable(path))
    problems = []
    if root != store.root_sha256:
        problems = [f"its index has the root digest {store.root_sha256}, but its ledger has {root}"]
    elif is_signed(path):
        checked = check_signature(LocalFiles(path).read(SIGNATURE_FILE), store.header, root, None)
        problems = [f"{SIGNATURE_FILE} {problem}" for problem in checked.problems]
    if problems:
        raise AlteredStore(f"{path} was changed after it was finished: {problems[0]}. {GET_IT_AGAIN.capitalize()}")
    return store
