//! Any bytes as a record: they are one, or the reason why not can be told. What follows a good seal is tried too, since
//! no fuzzer finds a hash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spdflow_cache::{Digest, Record};

fuzz_target!(|bytes: &[u8]| {
    // That of the seed.
    let fingerprint = Digest::from_bytes([0; 32]);
    if let Err(reason) = Record::unseal(bytes, &fingerprint) {
        assert!(!reason.is_empty());
    }
    let sealed = [format!("{{\n  \"seal\": \"{}\",\n", Digest::of(bytes)).as_bytes(), bytes].concat();
    if let Err(reason) = Record::unseal(&sealed, &fingerprint) {
        assert!(!reason.contains("seal"), "the seal is good: {reason}");
    }
});
