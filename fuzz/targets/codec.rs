#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quorate_transport_grpc::fuzzing::codec(bytes));
