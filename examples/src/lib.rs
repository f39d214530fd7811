//! Examples of odgm: one file each beside this folder, each run by a test in `tests/it`.
