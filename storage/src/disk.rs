//! The small trait through which all own files are written: a real disk and a simulated one.
