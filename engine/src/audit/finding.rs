//! What an audit can find, how bad it is, and the grades that follow.

use std::path::Path;

use serde::Serialize;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    // Level 0: completeness.
    /// No result is recorded for the instance.
    NoRecord,
    /// A recorded input was made by no instance of the pipeline.
    InputUnknown,
    /// A record's times cannot be true.
    ImpossibleTime,
    /// The bytes were left out, only their digest is there.
    LeftOut,
    // Level 1: integrity.
    /// A file is not there.
    Missing,
    /// A file is shorter than it was.
    Truncated,
    /// A file's bytes are wrong though nobody wrote to it.
    Rotten,
    /// A file was written to after it was made.
    Edited,
    /// A file cannot be read.
    Unreadable,
    // Level 2: derivation.
    /// The pipeline would compute something else today.
    Drift,
    /// The result was made by a program that was built from something else than this one.
    OtherBuild,
    /// The result is not the one that the lock file names.
    OtherThanLocked,
    /// A record's key is not that of what it says it was computed from.
    NotItsKey,
    /// A record does not say what the artifact says of itself.
    NotItsManifest,
    /// A file shows a number that is not the recorded one.
    Misquoted,
    // Level 3: reproduction.
    /// Made again, it is something else.
    NotReproduced,
    /// It could not be made again.
    CouldNotRun,
    // Level 4: authenticity.
    /// The log of runs is not a chain.
    BrokenLog,
    /// The history of a run is not the one that was logged.
    ChangedHistory,
    /// A record is not the one that was logged.
    ChangedRecord,
    /// A signature is not one of what it belongs to, or of nobody who may sign.
    BadSignature,
    /// No run has logged the record.
    NotLogged,
    /// Nobody has signed it.
    Unsigned,
    // Level 5: challenge.
    /// Somebody else has another result for the same key.
    Challenged,
    // Whatever is worth saying without being wrong.
    /// Worth knowing.
    Note,
}

/// What kind of fault it is: what the exit code tells. The later ones are the worse ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Nothing is wrong.
    Note,
    /// The cache is sound, but the present pipeline or program is another one.
    Drift,
    /// Evidence is incomplete.
    Incomplete,
    /// Something could not be made again.
    CouldNotRun,
    /// Somebody else has another result.
    Challenge,
    /// Something is not reproducible.
    NotReproducible,
    /// The log, a root or a signature is wrong.
    Authenticity,
    /// Something is damaged, or does not follow from what it says it follows from.
    Integrity,
}

impl Fault {
    /// Returns what kind of fault it is.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Note => Class::Note,
            Self::Drift | Self::OtherBuild | Self::OtherThanLocked => Class::Drift,
            Self::NoRecord
            | Self::InputUnknown
            | Self::ImpossibleTime
            | Self::LeftOut
            | Self::NotLogged
            | Self::Unsigned => Class::Incomplete,
            Self::CouldNotRun => Class::CouldNotRun,
            Self::Challenged => Class::Challenge,
            Self::NotReproduced => Class::NotReproducible,
            Self::BrokenLog | Self::ChangedHistory | Self::ChangedRecord | Self::BadSignature => Class::Authenticity,
            Self::Missing
            | Self::Truncated
            | Self::Rotten
            | Self::Edited
            | Self::Unreadable
            | Self::NotItsKey
            | Self::NotItsManifest
            | Self::Misquoted => Class::Integrity,
        }
    }
}

/// Something an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The instance it is about, if it is about one.
    pub instance: Option<String>,
    /// The file of its artifact, if it is about one.
    pub file: Option<String>,
    /// Where the file lies that is wrong, if it is about one.
    pub place: Option<String>,
    /// What is wrong with it, in a sentence.
    pub message: String,
    /// What to do about it, if we know.
    pub hint: Option<String>,
}

impl Finding {
    /// Returns a finding that is about everything.
    pub fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, instance: None, file: None, place: None, message: message.into(), hint: None }
    }

    /// Says which instance it is about.
    #[must_use]
    pub fn of(mut self, instance: &str) -> Self {
        self.instance = Some(instance.to_owned());
        self
    }

    /// Says which file it is about.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Says where the file lies that is wrong.
    #[must_use]
    pub fn at(mut self, place: &Path) -> Self {
        self.place = Some(place.display().to_string());
        self
    }

    /// Adds a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How well an output is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// Made again with the same bytes, and signed.
    A,
    /// Made again, within its tolerance or without a signature.
    B,
    /// Intact and derived from what its record says, but not made again.
    C,
    /// Evidence is incomplete: nothing contradicts it, but something that would prove it is missing.
    D,
    /// Something contradicts it.
    F,
}

impl Grade {
    /// Returns the letter.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::A => 'A',
            Self::B => 'B',
            Self::C => 'C',
            Self::D => 'D',
            Self::F => 'F',
        }
    }
}

/// What became of making an output again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reproduction {
    /// The same bytes, every time.
    Exact,
    /// Other bytes, but as near as the pipeline asks for.
    Within,
}

/// Returns the grade of an output.
///
/// `level` is up to which it was audited: below 2 it was not looked at whether it follows from what its record says.
/// `faults` are those of what it is about and of everything it rests on; a missing signature is not one of them.
#[must_use]
pub fn grade(level: u8, faults: &[Fault], reproduction: Option<Reproduction>, is_signed: bool) -> Grade {
    let worst = faults.iter().filter(|fault| **fault != Fault::Unsigned).map(|fault| fault.class()).max();
    match worst.unwrap_or(Class::Note) {
        Class::Challenge | Class::NotReproducible | Class::Authenticity | Class::Integrity => Grade::F,
        Class::Incomplete | Class::CouldNotRun => Grade::D,
        Class::Note | Class::Drift => match reproduction {
            Some(Reproduction::Exact) if is_signed => Grade::A,
            Some(_) => Grade::B,
            None if level < 2 => Grade::D,
            None => Grade::C,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_fault_decides_and_a_missing_signature_costs_the_a() {
        use Reproduction::{Exact, Within};
        assert_eq!(grade(4, &[], Some(Exact), true), Grade::A);
        assert_eq!(grade(4, &[Fault::Unsigned], Some(Exact), false), Grade::B);
        assert_eq!(grade(4, &[], Some(Within), true), Grade::B);
        assert_eq!(grade(4, &[Fault::Note, Fault::Drift], None, true), Grade::C);
        assert_eq!(grade(1, &[], None, true), Grade::D);
        assert_eq!(grade(4, &[Fault::Drift, Fault::NotLogged], Some(Exact), true), Grade::D);
        assert_eq!(grade(4, &[Fault::CouldNotRun], None, true), Grade::D);
        assert_eq!(grade(4, &[Fault::NotLogged, Fault::Rotten], Some(Exact), true), Grade::F);
        assert_eq!(grade(4, &[Fault::Challenged], Some(Exact), true), Grade::F);
    }

    #[test]
    fn words_are_those_of_json() {
        assert_eq!(serde_json::to_value(Fault::NotReproduced).unwrap(), "not_reproduced");
    }
}
