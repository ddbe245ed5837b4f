"""What a store says of itself to people and to data set tools."""
