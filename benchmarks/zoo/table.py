"""placeholder"""
def write_tables(cells, *, is_whole): pass
