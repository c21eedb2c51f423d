//! Any text as a lock file: a lock that is written and read again is the same, anything else is a mistake with a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spdflow_engine::lock::Lock;

fuzz_target!(|text: &str| match Lock::parse(text) {
    Ok(lock) => {
        let again = Lock::parse(&lock.text()).unwrap_or_else(|mistake| panic!("{mistake:?}\n{}", lock.text()));
        assert_eq!(again, lock);
    }
    Err(mistake) => assert!(!mistake.message.is_empty()),
});
