#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| odgm_storage_fuzz::storage_layers(input));
