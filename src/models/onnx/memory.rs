//! The memory of devices.

use std::fs;

use super::Provider;

/// Returns the memory of a device in bytes; `None` if it is not known.
pub(crate) fn device_memory(provider: Provider) -> Option<u64> {
    match provider {
        Provider::Cpu => memory_of_machine(),
        Provider::Cuda(_) => None,
    }
}

/// Returns the most memory of a device that this process has used, in bytes; `None` if it is not known.
pub(crate) fn device_memory_used(provider: Provider) -> Option<u64> {
    match provider {
        Provider::Cpu => kib_in(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:"),
        Provider::Cuda(_) => None,
    }
}

/// Returns the trillions of floating-point operations that a device can perform per second in half precision, by its
/// vendor's data sheet; `None` if it is not known.
pub(crate) fn device_peak(provider: Provider) -> Option<f64> {
    match provider {
        Provider::Cpu | Provider::Cuda(_) => None,
    }
}

/// Returns the memory that this process may use: that of the machine, or less in a container.
fn memory_of_machine() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_in(&text, "MemTotal:"));
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    total.into_iter().chain(limit).min()
}

/// Returns the number of bytes behind a key of a file like `/proc/meminfo`, which has KiB.
fn kib_in(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read() {
        let meminfo = "MemTotal:       16330076 kB\nMemFree:  1 kB\n";
        assert_eq!(kib_in(meminfo, "MemTotal:"), Some(16_330_076 << 10));
        assert_eq!(kib_in(meminfo, "VmHWM:"), None);
        assert!(device_memory(Provider::Cpu).is_none_or(|bytes| bytes > 1 << 28));
    }
}
