//! Fits what is known of a running stage into one line of a terminal.

use std::os::fd::AsFd;

/// What a line of a report begins with: a verb in twelve columns and a space.
const VERB_COLUMNS: usize = 13;
/// As many letters of a name are shown before anything else is given up.
const NAME_COLUMNS: usize = 24;

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

impl Size {
    /// Returns the size of a terminal; 80 by 24 if it does not tell.
    pub(crate) fn of(terminal: &impl AsFd) -> Self {
        let size = terminal_size::terminal_size_of(terminal);
        let known = size.filter(|(columns, rows)| columns.0 > 0 && rows.0 > 0);
        known.map_or(Self { columns: 80, rows: 24 }, |(columns, rows)| Self {
            columns: columns.0.into(),
            rows: rows.0.into(),
        })
    }
}

/// A name and what there is to say of it, each with how soon it is given up: the largest number first.
#[derive(Debug)]
pub(crate) struct Text {
    name: String,
    parts: Vec<(u8, String)>,
}

impl Text {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), parts: Vec::new() }
    }

    pub(crate) fn push(&mut self, given_up: u8, part: String) {
        self.parts.push((given_up, part));
    }
}

/// Returns the text for a line behind a verb. If it is too long, parts are left out, and then letters from the middle
/// of the name: its end tells the instances of a stage apart.
pub(crate) fn fitted(text: &Text, size: Size) -> String {
    // The last column stays free: some terminals wrap as soon as it is written to.
    let columns = size.columns.saturating_sub(VERB_COLUMNS + 1);
    let length = text.name.chars().count();
    let gap = usize::from(length > 0);
    let mut order: Vec<usize> = (0..text.parts.len()).collect();
    order.sort_by_key(|index| text.parts[*index].0);
    let (mut kept, mut used) = (vec![false; text.parts.len()], 0);
    for index in order {
        let (given_up, part) = &text.parts[index];
        let with = used + if used > 0 { 2 } else { gap } + part.chars().count();
        let for_name = length.min(if *given_up == 0 { NAME_COLUMNS / 3 } else { NAME_COLUMNS });
        if with + for_name <= columns {
            (kept[index], used) = (true, with);
        }
    }
    let parts: Vec<&str> =
        text.parts.iter().zip(kept).filter(|(_, kept)| *kept).map(|((_, part), _)| &**part).collect();
    let gap = if parts.is_empty() { "" } else { &" "[..gap] };
    format!("{}{gap}{}", elided(&text.name, columns.saturating_sub(used)), parts.join(", "))
}

/// Returns a name with as many letters of its middle left out that it has no more than `columns`.
fn elided(name: &str, columns: usize) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= columns {
        return name.to_owned();
    }
    let kept = columns.saturating_sub(1);
    let head = kept / 3;
    let tail = letters.len() - (kept - head);
    let ellipsis = if columns > 0 { "…" } else { "" };
    format!("{}{ellipsis}{}", letters[..head].iter().collect::<String>(), letters[tail..].iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(columns: usize, name: &str) -> String {
        let mut text = Text::new(name);
        for (given_up, part) in [(0, "120/5000"), (2, "35 steps/s"), (1, "2 min 19 s left"), (3, "loss 0.00213")] {
            text.push(given_up, part.to_owned());
        }
        fitted(&text, Size { columns, rows: 24 })
    }

    #[test]
    fn what_does_not_fit_is_left_out_in_the_order_of_its_worth() {
        let name = "decompose[seed=0]";
        assert_eq!(at(100, name), "decompose[seed=0] 120/5000, 35 steps/s, 2 min 19 s left, loss 0.00213");
        assert_eq!(at(80, name), "decompose[seed=0] 120/5000, 35 steps/s, 2 min 19 s left");
        assert_eq!(at(60, name), "decompose[seed=0] 120/5000, 2 min 19 s left");
        assert_eq!(at(54, name), "decompose[seed=0] 120/5000, 35 steps/s", "the time does not fit");
        assert_eq!(at(40, name), "decompose[seed=0] 120/5000");
        assert_eq!(at(32, name), "de…eed=0] 120/5000");
        assert_eq!(at(24, name), "dec…eed=0]");
        assert_eq!(at(10, name), "");
    }

    #[test]
    fn a_long_name_gives_way_in_its_middle() {
        let name = "decompose[price=start-0.001+coeff-0.0001,seed=0]";
        assert_eq!(
            at(100, name),
            "decompose[p…1+coeff-0.0001,seed=0] 120/5000, 35 steps/s, 2 min 19 s left, loss 0.00213"
        );
        for columns in 0..120 {
            assert!(at(columns, name).chars().count() <= columns.saturating_sub(14), "{columns}");
        }
        assert!(at(40, name).ends_with(",seed=0] 120/5000"), "{}", at(40, name));
    }
}
