//! What is wrong with a pipeline, in a form that somebody else prints.
//!
//! A [`Diagnostic`] is one mistake with the places it concerns; a [`Report`] is all mistakes found in one go together
//! with the texts they point into. The engine never prints: the binary renders reports with carets, a test or an
//! editor reads the fields.

use std::fmt;

use crate::pipeline::Source;
use crate::value::{DecodeError, Origin};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, lower case, without a final full stop.
    pub message: String,
    /// The places it concerns, the one to change first.
    pub labels: Vec<Label>,
    /// What to do about it, when we know.
    pub hints: Vec<String>,
}

/// A place in a text and what it has to do with the mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub origin: Origin,
    /// What to say there; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// Returns a mistake without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), labels: Vec::new(), hints: Vec::new() }
    }

    /// Adds a place that needs no words, if there is one.
    #[must_use]
    pub fn at(self, origin: Option<&Origin>) -> Self {
        self.label(origin, "")
    }

    /// Adds a place with words, if there is one.
    #[must_use]
    pub fn label(mut self, origin: Option<&Origin>, text: impl Into<String>) -> Self {
        if let Some(origin) = origin {
            self.labels.push(Label { origin: origin.clone(), text: text.into() });
        }
        self
    }

    /// Adds a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a next step, if there is one.
    #[must_use]
    pub fn hint_if_any(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hints.extend(hint.map(Into::into));
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl From<DecodeError> for Diagnostic {
    fn from(error: DecodeError) -> Self {
        Self::new(error.to_string()).at(error.origin.as_ref()).hint_if_any(error.hint)
    }
}

/// All mistakes found in a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The mistakes, in the order of the texts; those without a place come first.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts that [`Origin::source`] counts.
    pub sources: Vec<Source>,
}

impl Report {
    /// Returns a report with its mistakes sorted by place, each said once.
    #[must_use]
    pub fn new(mut diagnostics: Vec<Diagnostic>, sources: Vec<Source>) -> Self {
        diagnostics.sort_by_key(|diagnostic| {
            diagnostic.labels.first().map(|label| (label.origin.source, label.origin.span.start, label.origin.span.end))
        });
        diagnostics.dedup();
        Self { diagnostics, sources }
    }

    /// Returns the line and column, both counted from 1 in characters, where `origin` begins.
    #[must_use]
    pub fn line_and_column(&self, origin: &Origin) -> (usize, usize) {
        let text = self.sources.get(origin.source).map_or("", |source| source.text.as_str());
        let before = text.get(..origin.span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl From<Diagnostic> for Report {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], sources: Vec::new() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, diagnostic) in self.diagnostics.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            if let Some(label) = diagnostic.labels.first() {
                let (line, column) = self.line_and_column(&label.origin);
                let name = self.sources.get(label.origin.source).map_or("", |source| source.name.as_str());
                write!(f, "{name}:{line}:{column}: ")?;
            }
            f.write_str(&diagnostic.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
