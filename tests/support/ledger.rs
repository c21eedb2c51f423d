//! A chain of three commands that note when they run.

use std::fs;
use std::process::Command;

use crate::support::Bench;

/// The chain `a -> b -> c`: `a` keeps the remainder of a number by ten, `b` doubles it by a script, `c` adds a line.
pub(crate) const CHAIN: &str = r#"
[stage.a]
uses = "command"
[stage.a.params]
run = ["sh", "-c", "echo a >> $LEDGER; echo $(({value.number} % 10)) > {out.number}"]
outputs = { number = "number.txt" }
values = { number = 23 }
pass_env = ["LEDGER"]

[stage.b]
uses = "command"
inputs = { a = "a" }
[stage.b.params]
run = ["sh", "double.sh", "{in.a}/number.txt", "{out.number}"]
outputs = { number = "number.txt" }
code = ["double.sh"]
pass_env = ["LEDGER"]

[stage.c]
uses = "command"
inputs = { b = "b" }
[stage.c.params]
run = ["sh", "-c", "echo c >> $LEDGER; (cat {in.b}/number.txt; echo end) > {out.text}"]
outputs = { text = "text.txt" }
pass_env = ["LEDGER"]
"#;

/// What `b` runs.
pub(crate) const DOUBLE: &str = "echo b >> $LEDGER\nread -r n < \"$1\"\necho $((2 * n)) > \"$2\"\n";

/// A bench whose commands note in `ledger` that they ran, which no engine can see or hide.
pub(crate) struct Ledger(pub(crate) Bench);

impl Ledger {
    /// Makes the chain in an empty folder.
    pub(crate) fn new() -> Self {
        Self(Bench::new().file("p.toml", CHAIN).file("double.sh", DOUBLE).file("ledger", ""))
    }

    /// Runs, asserts success and returns which stages ran.
    pub(crate) fn run(&self, more: &[&str]) -> String {
        let (code, ran) = self.try_run(more);
        assert_eq!(code, Some(0), "{more:?}");
        ran
    }

    /// Runs and returns the exit code and which stages ran.
    pub(crate) fn try_run(&self, more: &[&str]) -> (Option<i32>, String) {
        fs::write(self.0.path().join("ledger"), "").expect("the ledger");
        let status = self.command(more).status().expect("the binary starts");
        (status.code(), self.ran())
    }

    /// Returns the command that runs the chain.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let mut command = self.0.command(&[&["run", "p.toml", "--quiet"], more].concat());
        command.env("LEDGER", self.0.path().join("ledger"));
        command
    }

    /// Returns which stages have run since the ledger was last emptied.
    pub(crate) fn ran(&self) -> String {
        fs::read_to_string(self.0.path().join("ledger")).expect("the ledger").replace('\n', "")
    }

    /// Replaces a piece of a file once.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.0.path().join(file);
        let text = fs::read_to_string(&path).expect("a file of the bench");
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).expect("a file of the bench");
    }

    /// Returns the last result.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.0.path().join("out/p/c/text.txt")).expect("the last result")
    }
}
