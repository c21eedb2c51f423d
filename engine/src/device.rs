//! Where numbers are computed, and what of that enters fingerprints.

use std::fmt;

use crate::kind::StageKind;

/// Where numbers are computed; part of the fingerprint, since bits differ between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
}

impl Device {
    /// Returns the name that enters fingerprints: `cpu` or `cuda`.
    #[must_use]
    pub fn numeric_target(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

/// Writes the device as `--device` reads it: `cpu`, `cuda:1`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// What enters fingerprints of where a run computes: a stage that ranks compute together adds up the same numbers in
/// another order, so that its last bits depend on how many they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumericTarget {
    alone: &'static str,
    together: String,
}

impl NumericTarget {
    /// Returns that of a run by `ranks` processes.
    #[must_use]
    pub fn new(device: Device, ranks: usize) -> Self {
        let alone = device.numeric_target();
        Self { alone, together: if ranks == 1 { alone.to_owned() } else { format!("{alone}*{ranks}") } }
    }

    /// Returns what enters the fingerprints of a kind: `cpu`, or `cpu*4` if four ranks compute it together.
    #[must_use]
    pub fn of(&self, kind: &dyn StageKind) -> &str {
        if kind.uses_ranks() { &self.together } else { self.alone }
    }
}

impl From<Device> for NumericTarget {
    fn from(device: Device) -> Self {
        Self::new(device, 1)
    }
}
