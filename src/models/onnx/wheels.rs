//! The wheels that are fetched: which package has which library, and the hash and size of each for every platform.

use std::{
    env::consts::{ARCH, OS},
    fmt,
};

/// The version for the CPU. Any library of version 1.24 or later works if it is named explicitly. Later wheels write
/// telemetry unless a variable turns it off, and another version has other bits.
pub(super) const CPU_VERSION: &str = "1.24.4";

/// What ONNX Runtime can be fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    Cpu,
    /// NVIDIA's GPUs. It runs models on the CPU, too.
    Cuda,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "the CPU",
            Self::Cuda => "CUDA",
        })
    }
}

/// A wheel of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wheel {
    /// pip's name of the package.
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// pip's name of the platform.
    pub(super) platform: &'static str,
    /// In hex.
    pub(super) sha256: &'static str,
    /// The size of the wheel.
    pub(crate) bytes: u64,
    /// The libraries that it must have.
    pub(super) libraries: &'static [&'static str],
    /// The beginnings of the names of all files that are kept; the others are headers and static libraries.
    pub(super) kept: &'static [&'static str],
}

/// ONNX Runtime with what it needs, in one folder of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Release {
    /// The name of the folder.
    pub(super) folder: &'static str,
    /// The file name of ONNX Runtime's library.
    pub(super) library: &'static str,
    /// ONNX Runtime first.
    pub(super) wheels: &'static [Wheel],
}

/// Returns what is fetched for this platform, if anything is known for it.
pub(super) fn release(build: Build) -> Option<Release> {
    match (OS, ARCH, build) {
        ("linux", "x86_64", Build::Cpu) => Some(LINUX_X86),
        ("linux", "x86_64", Build::Cuda) => Some(LINUX_X86_CUDA),
        ("linux", "aarch64", Build::Cpu) => Some(LINUX_ARM),
        ("linux", "aarch64", Build::Cuda) => Some(LINUX_ARM_CUDA),
        ("macos", "aarch64", Build::Cpu) => Some(MACOS_ARM),
        _ => None,
    }
}

const LINUX_X86: Release = cpu(
    "libonnxruntime.so.1.24.4",
    &[Wheel {
        platform: "manylinux_2_28_x86_64",
        sha256: "e54ad52e61d2d4618dcff8fa1480ac66b24ee2eab73331322db1049f11ccf330",
        bytes: 17_222_993,
        ..CPU
    }],
);

const LINUX_ARM: Release = cpu(
    "libonnxruntime.so.1.24.4",
    &[Wheel {
        platform: "manylinux_2_28_aarch64",
        sha256: "046ff290045a387676941a02a8ae5c3ebec6b4f551ae228711968c4a69d8f6b7",
        bytes: 15_152_472,
        ..CPU
    }],
);

const MACOS_ARM: Release = cpu(
    "libonnxruntime.1.24.4.dylib",
    &[Wheel {
        platform: "macosx_14_0_arm64",
        sha256: "0bdfce8e9a6497cec584aab407b71bf697dac5e1b7b7974adc50bf7533bdb3a2",
        bytes: 17_332_131,
        libraries: &["libonnxruntime.1.24.4.dylib"],
        kept: &["libonnxruntime.1.24.4.dylib"],
        ..CPU
    }],
);

const LINUX_X86_CUDA: Release = cuda(&[
    Wheel {
        platform: "manylinux_2_28_x86_64",
        sha256: "e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6",
        bytes: 255_560_985,
        ..CUDA
    },
    Wheel {
        platform: "manylinux_2_27_x86_64",
        sha256: "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
        bytes: 423_133_236,
        ..CUBLAS
    },
    Wheel {
        platform: "manylinux2014_x86_64",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        bytes: 2_243_632,
        ..CUDART
    },
    Wheel {
        platform: "manylinux_2_27_x86_64",
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
        bytes: 59_544_258,
        ..CURAND
    },
    Wheel {
        platform: "manylinux2010_x86_64",
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        bytes: 90_215_200,
        ..NVRTC
    },
    Wheel {
        platform: "manylinux_2_27_x86_64",
        sha256: "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
        bytes: 366_066_321,
        ..CUDNN
    },
]);

const LINUX_ARM_CUDA: Release = cuda(&[
    Wheel {
        platform: "manylinux_2_34_aarch64",
        sha256: "dc878916611b8a816000ffedacc5f5988f77bb93bf9655ad20144ee3acb08e55",
        bytes: 212_349_085,
        ..CUDA
    },
    Wheel {
        platform: "manylinux_2_27_aarch64",
        sha256: "c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2",
        bytes: 542_851_226,
        ..CUBLAS
    },
    Wheel {
        platform: "manylinux2014_aarch64",
        sha256: "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
        bytes: 2_261_060,
        ..CUDART
    },
    Wheel {
        platform: "manylinux_2_27_aarch64",
        sha256: "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
        bytes: 61_962_106,
        ..CURAND
    },
    Wheel {
        platform: "manylinux2014_aarch64",
        sha256: "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
        bytes: 43_015_449,
        ..NVRTC
    },
    Wheel {
        platform: "manylinux_2_27_aarch64",
        sha256: "6ed29ffaee1176c612daf442e4dd6cfeb6a0caa43ddcbeb59da94953030b1be4",
        bytes: 433_781_201,
        ..CUDNN
    },
]);

const fn cpu(library: &'static str, wheels: &'static [Wheel]) -> Release {
    Release { folder: CPU_VERSION, library, wheels }
}

const fn cuda(wheels: &'static [Wheel]) -> Release {
    Release { folder: "1.31.1-cuda13", library: "libonnxruntime.so.1.31.1", wheels }
}

const CPU: Wheel = Wheel {
    package: "onnxruntime",
    version: CPU_VERSION,
    platform: "",
    sha256: "",
    bytes: 0,
    libraries: &["libonnxruntime.so.1.24.4"],
    kept: &["libonnxruntime.so.1.24.4"],
};

/// The provider for TensorRT is left out.
const CUDA: Wheel = Wheel {
    package: "onnxruntime-gpu",
    version: "1.31.1",
    libraries: &["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so", "libonnxruntime.so.1.31.1"],
    kept: &["libonnxruntime.so.", "libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"],
    ..CPU
};

// The libraries of CUDA 13.0: they run with every driver for CUDA 13.
const CUBLAS: Wheel = Wheel {
    package: "nvidia-cublas",
    version: "13.1.0.3",
    libraries: &["libcublasLt.so.13", "libcublas.so.13"],
    kept: &["libcublas"],
    ..CPU
};

const CUDART: Wheel = Wheel {
    package: "nvidia-cuda-runtime",
    version: "13.0.96",
    libraries: &["libcudart.so.13"],
    kept: &["libcudart.so."],
    ..CPU
};

const CURAND: Wheel = Wheel {
    package: "nvidia-curand",
    version: "10.4.0.35",
    libraries: &["libcurand.so.10"],
    kept: &["libcurand.so."],
    ..CPU
};

const NVRTC: Wheel = Wheel {
    package: "nvidia-cuda-nvrtc",
    version: "13.0.88",
    libraries: &["libnvrtc.so.13"],
    kept: &["libnvrtc.so.", "libnvrtc-builtins.so."],
    ..CPU
};

const CUDNN: Wheel = Wheel {
    package: "nvidia-cudnn-cu13",
    version: "9.19.0.56",
    libraries: &["libcudnn.so.9"],
    kept: &["libcudnn"],
    ..CPU
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wheel_is_complete() {
        for release in [LINUX_X86, LINUX_ARM, MACOS_ARM, LINUX_X86_CUDA, LINUX_ARM_CUDA] {
            assert!(release.wheels[0].libraries.contains(&release.library), "{release:?}");
            for wheel in release.wheels {
                let is_hex = wheel.sha256.len() == 64 && wheel.sha256.chars().all(|c| c.is_ascii_hexdigit());
                assert!(is_hex && wheel.bytes > 1_000_000 && !wheel.platform.is_empty(), "{wheel:?}");
                let is_kept = |name: &&str| wheel.kept.iter().any(|prefix| name.starts_with(prefix));
                assert!(wheel.libraries.iter().all(is_kept), "{wheel:?}");
            }
        }
        let hashes: std::collections::BTreeSet<_> = [LINUX_X86_CUDA, LINUX_ARM_CUDA]
            .iter()
            .flat_map(|release| release.wheels.iter().map(|wheel| wheel.sha256))
            .collect();
        assert_eq!(hashes.len(), 12, "one hash is there twice");
    }
}
