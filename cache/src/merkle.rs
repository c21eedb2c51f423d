//! One digest for a list, from which it can be shown that something is in it: the hash tree of RFC 6962, over BLAKE3.
//!
//! A leaf is the digest of a zero byte and its bytes, a node that of a one byte and its two children; of more than one leaf
//! the left child takes the largest power of two that is smaller than their number. The first byte keeps a leaf from being
//! taken for a node.

use crate::Digest;

/// Returns the digest of a leaf.
#[must_use]
pub fn leaf(bytes: &[u8]) -> Digest {
    tagged(0, &[bytes])
}

/// Returns the root of the tree over these leaves; of none, the digest of nothing.
#[must_use]
pub fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(b""),
        [leaf] => *leaf,
        leaves => {
            let half = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(half);
            tagged(1, &[root(left).as_bytes(), root(right).as_bytes()])
        }
    }
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[tag]);
    for part in parts {
        hasher.update(part);
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(left: Digest, right: Digest) -> Digest {
        Digest::of(&[&[1][..], left.as_bytes(), right.as_bytes()].concat())
    }

    #[test]
    fn the_left_side_takes_the_largest_power_of_two_that_leaves_something() {
        let leaves: Vec<Digest> = (0_u8..7).map(|number| leaf(&[number])).collect();
        let [a, b, c, d, e, f, g] = leaves[..] else { panic!("seven") };
        assert_eq!(a, Digest::of(&[0, 0]));
        assert_eq!(root(&[]), Digest::of(b""));
        assert_eq!(root(&[a]), a);
        assert_eq!(root(&leaves[..3]), node(node(a, b), c));
        assert_eq!(root(&leaves[..4]), node(node(a, b), node(c, d)));
        assert_eq!(root(&leaves), node(node(node(a, b), node(c, d)), node(node(e, f), g)));
    }

    #[test]
    fn order_and_number_of_leaves_move_the_root() {
        let [a, b] = [leaf(b"a"), leaf(b"b")];
        let roots = [root(&[a]), root(&[a, b]), root(&[b, a]), root(&[a, b, b]), root(&[a, a, b])];
        let distinct: std::collections::BTreeSet<_> = roots.iter().collect();
        assert_eq!(distinct.len(), roots.len());
    }
}
