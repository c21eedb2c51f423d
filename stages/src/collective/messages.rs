//! A collective of messages: everything goes to rank 0, which adds it up in the order of the ranks and sends it back.
//!
//! A message is the number of f32 values (8 bytes), the values, then f64 numbers, all little-endian.

use spdflow_engine::ranks::{RankError, World};

use super::Collective;

/// What to do with each value and each number that arrives.
type Take = (fn(&mut f32, f32), fn(&mut f64, f64));

/// A collective over the messages of a [`World`].
pub struct Messages<'a> {
    world: &'a dyn World,
}

impl<'a> Messages<'a> {
    /// Returns the collective of `world`.
    #[must_use]
    pub fn new(world: &'a dyn World) -> Self {
        Self { world }
    }

    /// Gives the numbers of a message of rank `from` to `take`, each with its place among ours.
    fn receive(&self, from: usize, values: &mut [f32], numbers: &mut [f64], take: Take) -> Result<(), RankError> {
        let message = self.world.receive(from)?;
        let expected = 8 + values.len() * 4 + numbers.len() * 8;
        let head = message.first_chunk().map(|head| u64::from_le_bytes(*head));
        if message.len() != expected || head != Some(values.len() as u64) {
            return Err(RankError::Confused {
                rank: from,
                size: self.size(),
                expected: format!("{} values and {} numbers", values.len(), numbers.len()),
                found: format!("{} bytes", message.len()),
            });
        }
        let (ours, theirs) = message[8..].split_at(values.len() * 4);
        for (value, bytes) in values.iter_mut().zip(ours.as_chunks().0) {
            take.0(value, f32::from_le_bytes(*bytes));
        }
        for (number, bytes) in numbers.iter_mut().zip(theirs.as_chunks().0) {
            take.1(number, f64::from_le_bytes(*bytes));
        }
        Ok(())
    }

    fn send_all(&self, values: &[f32], numbers: &[f64]) -> Result<(), RankError> {
        let message = message(values, numbers);
        (1..self.size()).try_for_each(|rank| self.world.send(rank, &message))
    }
}

fn message(values: &[f32], numbers: &[f64]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + values.len() * 4 + numbers.len() * 8];
    let (head, rest) = bytes.split_at_mut(8);
    head.copy_from_slice(&(values.len() as u64).to_le_bytes());
    let (first, second) = rest.split_at_mut(values.len() * 4);
    for (bytes, value) in first.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    for (bytes, number) in second.as_chunks_mut().0.iter_mut().zip(numbers) {
        *bytes = number.to_le_bytes();
    }
    bytes
}

impl Collective for Messages<'_> {
    fn rank(&self) -> usize {
        self.world.rank()
    }

    fn size(&self) -> usize {
        self.world.size()
    }

    fn sum(&self, values: &mut [f32], numbers: &mut [f64]) -> Result<(), RankError> {
        if self.rank() == 0 {
            for rank in 1..self.size() {
                self.receive(rank, values, numbers, (|sum, x| *sum += x, |sum, x| *sum += x))?;
            }
            self.send_all(values, numbers)
        } else {
            self.world.send(0, &message(values, numbers))?;
            self.receive(0, values, numbers, (|value, x| *value = x, |number, x| *number = x))
        }
    }

    fn broadcast(&self, values: &mut [f32], numbers: &mut [f64]) -> Result<(), RankError> {
        if self.rank() == 0 {
            self.send_all(values, numbers)
        } else {
            self.receive(0, values, numbers, (|value, x| *value = x, |number, x| *number = x))
        }
    }

    fn trouble(&self) -> Option<RankError> {
        self.world.trouble()
    }
}
