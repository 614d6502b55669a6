//! Damaged files for tests: copies of a whole file with damage from a seed, the bounds in which a process has to deal
//! with them, and what each answer must keep to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "used by tests and fuzzing alone")]

use std::{
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// Characters of a message that a person can still read.
const MAX_MESSAGE_CHARS: usize = 32 << 10;

/// Whether this program, and not one of its packages, has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs `work`, which may contain panics of packages, but not of this program. Those of packages are not printed.
pub(crate) fn without_own_panic<T>(work: impl FnOnce() -> T) -> T {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let in_package = panic.location().is_some_and(|location| location.file().contains("/registry/src/"));
            if !in_package {
                PANICKED.store(true, Ordering::Relaxed);
                report(panic);
            }
        }));
    });
    PANICKED.store(false, Ordering::Relaxed);
    let done = work();
    assert!(!PANICKED.load(Ordering::Relaxed), "this program has panicked, see above");
    done
}

/// Sees that a message says something, in characters that a terminal shows, and that it is not a report of a bug.
pub(crate) fn assert_clean(message: &str) {
    assert!(!message.is_empty() && message.chars().count() < MAX_MESSAGE_CHARS, "{message}");
    assert!(!message.starts_with("a bug ended the command"), "{message}");
    assert!(!message.lines().any(|line| line.contains(char::is_control)), "{message:?}");
}

#[cfg(test)]
pub(crate) use of_tests::{each_copy, in_bounds};

#[cfg(test)]
mod of_tests {
    use std::{
        env, fs,
        panic::{self, AssertUnwindSafe},
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    /// Memory of a process that reads damaged files, in KiB. Its own code takes a quarter of it.
    const MAX_MEMORY_KIB: u64 = 2 << 20;
    /// How long it may take: many times what it takes.
    const MAX_TIME: Duration = Duration::from_secs(300);
    /// Failures of damaged copies that are shown.
    const MAX_SHOWN: usize = 12;
    /// Tells a process that it is the one with bounds.
    const IN_BOUNDS: &str = "DISCL_TEST_IN_BOUNDS";

    /// What numbers in text and lengths in binary data are replaced with.
    const NUMBERS: [&str; 14] = [
        "0",
        "1",
        "-1",
        "0.5",
        "1e999",
        "1e308",
        "2147483648",
        "4294967295",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "null",
        "[]",
    ];
    const LENGTHS: [&[u8]; 6] = [
        &[0xff, 0xff, 0xff, 0x7f],
        &[0x00, 0x00, 0x00, 0x80],
        &[0xff; 8],
        // As variable-length integers: 2^31 - 1 and 2^62.
        &[0xfe, 0xff, 0xff, 0xff, 0x0f],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40],
        &[0x00; 8],
    ];

    /// Checks damaged copies of a whole file, the same ones each time. Fails after all of them, with the first few failures.
    pub(crate) fn each_copy(whole: &[u8], count: u64, check: impl Fn(&[u8])) {
        let mut failures = Vec::new();
        for (number, copy) in copies(whole, count).enumerate() {
            if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| check(&copy))) {
                let message = panic.downcast_ref::<String>().map_or("see above", String::as_str);
                failures.push(format!("copy {number}: {message}"));
            }
        }
        let first = failures.iter().take(MAX_SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(failures.is_empty(), "{} of {count} damaged copies fail:\n{first}", failures.len());
    }

    fn copies(whole: &[u8], count: u64) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|seed| {
            let mut draws = Draws(seed);
            let mut bytes = whole.to_vec();
            for _ in 0..=draws.below(3) {
                draws.damage(&mut bytes);
            }
            bytes
        })
    }

    /// Numbers from a seed (splitmix64).
    struct Draws(u64);

    impl Draws {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ mixed >> 31) % end.max(1) as u64).unwrap()
        }

        /// A position: anywhere, or near an end, where formats have their headers and footers.
        fn position(&mut self, length: usize) -> usize {
            let near = self.below(length.min(512));
            match self.below(3) {
                0 => near,
                1 => length.saturating_sub(near + 1),
                _ => self.below(length),
            }
        }

        fn range(&mut self, length: usize) -> std::ops::Range<usize> {
            let (start, longest) = (self.position(length), [4, 64, length][self.below(3)]);
            start..length.min(start + self.below(longest))
        }

        fn damage(&mut self, bytes: &mut Vec<u8>) {
            if bytes.is_empty() {
                return;
            }
            let length = bytes.len();
            let (at, range) = (self.position(length), self.range(length));
            match self.below(10) {
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = [0, 0xff, 0x7f, b'"', b'{', b'9'][self.below(6)],
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(range)),
                5 => {
                    let piece = bytes[range].to_vec();
                    bytes.splice(at..at, piece);
                }
                6 => {
                    let piece = bytes[range].to_vec();
                    let end = length.min(at + piece.len());
                    bytes.splice(at..end, piece);
                }
                7 => {
                    let piece = LENGTHS[self.below(LENGTHS.len())];
                    bytes.splice(at..length.min(at + piece.len()), piece.iter().copied());
                }
                8 => self.replace(bytes, at, u8::is_ascii_digit),
                _ => self.replace(bytes, at, |byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte)),
            }
        }

        /// Replaces the first run of such bytes from a position on by a number, or by another run.
        fn replace(&mut self, bytes: &mut Vec<u8>, at: usize, belongs: impl Fn(&u8) -> bool) {
            let run = |from: usize| {
                let start = from + bytes[from..].iter().position(&belongs)?;
                Some(start..start + bytes[start..].iter().take_while(|byte| belongs(byte)).count())
            };
            let (Some(found), other) = (run(at), run(self.position(bytes.len()))) else { return };
            let piece = match other.filter(|_| self.below(3) == 0) {
                Some(other) => bytes[other].to_vec(),
                None => NUMBERS[self.below(NUMBERS.len())].as_bytes().to_vec(),
            };
            bytes.splice(found, piece);
        }
    }

    /// Runs the current test in a separate process, with little memory and time: `work` is done there. A hang, an overflow
    /// of the stack and an allocation without bounds would end the process of all tests.
    pub(crate) fn in_bounds(work: impl FnOnce()) {
        if env::var_os(IN_BOUNDS).is_some() {
            return work();
        }
        let thread = thread::current();
        let output = tempfile::NamedTempFile::new().unwrap();
        let mut process = Command::new("sh")
            // Not every system can limit the memory of a process.
            .args(["-c", &format!("ulimit -v {MAX_MEMORY_KIB} 2>/dev/null; exec \"$0\" \"$@\"")])
            .arg(env::current_exe().unwrap())
            .args([thread.name().unwrap(), "--exact", "--nocapture"])
            .env(IN_BOUNDS, "1")
            .env("RUST_BACKTRACE", "0")
            // Otherwise each thread reserves memory that it does not use.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::null())
            .stdout(output.as_file().try_clone().unwrap())
            .stderr(output.as_file().try_clone().unwrap())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let ended = loop {
            match process.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if begun.elapsed() > MAX_TIME => break None,
                None => thread::sleep(Duration::from_millis(20)),
            }
        };
        if ended.is_none() {
            process.kill().unwrap();
        }
        let said = String::from_utf8_lossy(&fs::read(output.path()).unwrap()).into_owned();
        let last = said.lines().skip(said.lines().count().saturating_sub(60)).collect::<Vec<_>>().join("\n");
        assert!(ended.is_some_and(|status| status.success()), "{ended:?} after {:?}:\n{last}", begun.elapsed());
        assert!(said.contains("1 passed"), "the test ran nothing:\n{last}");
    }

    #[test]
    fn damage_is_the_same_each_time_and_of_every_kind() {
        let whole = br#"{"a": 12, "b": [3, 45.6], "c": "some text"}"#;
        let all: Vec<Vec<u8>> = copies(whole, 300).collect();
        assert!(copies(whole, 300).eq(all.iter().cloned()));
        assert!(all.iter().filter(|copy| copy.as_slice() == whole).count() < 15, "few copies are whole");
        let some = |of: &dyn Fn(&Vec<u8>) -> bool| all.iter().any(of);
        assert!(some(&|copy| copy.len() < 10) && some(&|copy| copy.len() > 60), "shorter and longer ones");
        assert!(some(&|copy| copy.windows(5).any(|part| part == b"1e999")), "extreme numbers");
        assert!(some(&|copy| std::str::from_utf8(copy).is_err()), "what is not text");
    }
}
