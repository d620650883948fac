"""The processes. Each imports `shared`, never another one."""
