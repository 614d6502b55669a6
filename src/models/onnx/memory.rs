//! The memory of devices.

use std::{fs, sync::OnceLock};

use super::{
    Provider,
    machine::{self, Gpu, Gpus, Machine},
};

/// Trillions of floating-point operations per second in half precision, with sums in single precision, of GPUs whose name
/// contains a text. From NVIDIA's data sheets, without sparsity. The first that fits counts.
const PEAKS: [(&str, f64); 14] = [
    ("B200", 2250.0),
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("V100", 125.0),
    ("T4", 65.0),
    ("RTX 4090", 165.0),
];

/// Returns the memory of a device in bytes; `None` if it is not known.
pub(crate) fn device_memory(provider: Provider) -> Option<u64> {
    match provider {
        Provider::Cpu => memory_of_machine(),
        Provider::Cuda(number) => gpu(number)?.memory_mib?.checked_mul(1 << 20),
    }
}

/// Returns the most memory of a device that was in use, in bytes: on the CPU by this process, on a GPU by all programs,
/// since ONNX Runtime returns none before the end. `None` if it is not known.
pub(crate) fn device_memory_used(provider: Provider) -> Option<u64> {
    match provider {
        Provider::Cpu => kib_in(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:"),
        Provider::Cuda(number) => {
            let mib = machine::memory_used()?.get(Machine::this().position(number)).copied()??;
            mib.checked_mul(1 << 20)
        }
    }
}

/// Returns the trillions of floating-point operations that a device can perform per second in half precision, by its
/// vendor's data sheet; `None` if it is not known.
pub(crate) fn device_peak(provider: Provider) -> Option<f64> {
    match provider {
        Provider::Cpu => None,
        Provider::Cuda(number) => peak(&gpu(number)?.name),
    }
}

fn peak(name: &str) -> Option<f64> {
    let words: Vec<&str> = name.split([' ', '-']).collect();
    let has = |text: &str| words.windows(text.split(' ').count()).any(|part| part.join(" ") == text);
    PEAKS.iter().find(|(text, _)| has(text)).map(|(_, peak)| *peak)
}

/// Returns the GPU that CUDA calls `number`. The driver is asked once.
fn gpu(number: u32) -> Option<&'static Gpu> {
    static GPUS: OnceLock<Gpus> = OnceLock::new();
    let machine = Machine::this();
    GPUS.get_or_init(|| machine.gpus()).list.get(machine.position(number))
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
    fn gpus_have_the_peaks_of_their_data_sheets() {
        let known = ["NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S", "NVIDIA L4"];
        assert_eq!(known.map(peak), [989.0, 756.0, 312.0, 362.0, 121.0].map(Some));
        assert_eq!(["NVIDIA RTX A1000", "NVIDIA T400", "NVIDIA GeForce GTX 1080"].map(peak), [None; 3]);
    }

    #[test]
    fn the_memory_of_a_machine_is_read() {
        let meminfo = "MemTotal:       16330076 kB\nMemFree:  1 kB\n";
        assert_eq!(kib_in(meminfo, "MemTotal:"), Some(16_330_076 << 10));
        assert_eq!(kib_in(meminfo, "VmHWM:"), None);
        assert!(device_memory(Provider::Cpu).is_none_or(|bytes| bytes > 1 << 28));
    }
}
