#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| turnfleet_relay_fuzz::targets::deframer::run(data));
