//! Feeds the inputs that libFuzzer finds to the check that `DISCL_FUZZ_TARGET` names.
#![no_main]
#![allow(missing_docs)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;

/// No input of a few kilobytes needs more in one piece.
const MAX_ALLOCATION: usize = 256 << 20;

struct Limited;

// SAFETY: it is the system's allocator, which may also fail.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_ALLOCATION { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

static TARGET: LazyLock<String> =
    LazyLock::new(|| std::env::var("DISCL_FUZZ_TARGET").expect("`DISCL_FUZZ_TARGET` names a kind of input"));

/// Where checks write files.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder can be made"));

fuzz_target!(|input: &[u8]| discl_pipe::fuzzing::check(&TARGET, FOLDER.path(), input));
