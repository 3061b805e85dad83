//! Merkle tree over the lines of a segment (RFC 9162 §2.1), of which only the roots of complete subtrees are kept.

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
pub(crate) type NodeHash = [u8; 32];

/// Start of a line with texts that can be erased.
const TEXTS: &[u8] = br#"{"texts":{"#;
/// End of the texts, and the member that follows. No string holds these bytes, since JSON escapes quotation marks.
const TEXTS_END: &[u8] = br#"}},"decision_id":"#;

/// Hash of a leaf: of a line without its line feed and without the texts that can be erased (RFC 9162 §2.1.1).
pub(crate) fn leaf_hash(line: &[u8]) -> NodeHash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    match rest_after_texts(line) {
        None => hasher.update(line),
        Some(rest) => {
            hasher.update(b"{");
            hasher.update(rest);
        }
    }
    hasher.finalize().into()
}

/// Members of a line after its texts and their comma. `None`: the line has no texts.
fn rest_after_texts(line: &[u8]) -> Option<&[u8]> {
    let texts = line.strip_prefix(TEXTS)?;
    let end = texts.windows(TEXTS_END.len()).position(|window| window == TEXTS_END)?;
    // Two braces and the comma.
    texts.get(end.saturating_add(3)..)
}

fn node_hash(left: &NodeHash, right: &NodeHash) -> NodeHash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// An append-only Merkle tree. At most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MerkleTree {
    count: u64,
    // INVARIANT (sizes): one hash for each bit that is set in `count`, the largest subtree first.
    subtrees: Vec<NodeHash>,
}

impl MerkleTree {
    /// Number of leaves.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Adds a leaf hash.
    pub(crate) fn push(&mut self, leaf: NodeHash) {
        self.count = self.count.saturating_add(1);
        let mut right = leaf;
        for _ in 0..self.count.trailing_zeros() {
            let Some(left) = self.subtrees.pop() else { break };
            right = node_hash(&left, &right);
        }
        self.subtrees.push(right);
    }

    /// Root of the tree. Of an empty tree: the hash of no bytes.
    pub(crate) fn root(&self) -> NodeHash {
        let mut smaller = self.subtrees.iter().rev();
        let Some(last) = smaller.next() else { return Sha256::digest([]).into() };
        smaller.fold(*last, |right, left| node_hash(left, &right))
    }
}

#[cfg(test)]
mod tests {
    use authz_base::hex::hex;

    use super::*;

    /// Texts that can be erased do not count, wherever their words look like the end of the texts.
    #[test]
    fn a_leaf_leaves_texts_out() {
        let plain = br#"{"decision_id":"d","input":{"texts":{"a":{}},"b":1}}"#;
        let texts = [
            r#"{"/a":{"salt":"s","text":"t"}}"#,
            r#"{"/a":{"salt":"s","text":"}},\"decision_id\":"},"/b":{"salt":"s","text":""}}"#,
        ];
        for texts in texts {
            let line = format!(
                r#"{{"texts":{texts},"decision_id":"d","input":{{"texts":{{"a":{{}}}},"b":1}}}}"#
            );
            assert_eq!(leaf_hash(plain), leaf_hash(line.as_bytes()), "{line}");
        }
        let other = br#"{"decision_id":"e","input":{"texts":{"a":{}},"b":1}}"#;
        assert_ne!(leaf_hash(plain), leaf_hash(other));
        assert_ne!(leaf_hash(br#"{"texts":{}}"#), leaf_hash(br#"{}"#));
    }

    /// The definition of RFC 9162 §2.1.1, word by word.
    fn reference(leaves: &[NodeHash]) -> NodeHash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(half);
                node_hash(&reference(left), &reference(right))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_definition() {
        let mut tree = MerkleTree::default();
        let mut leaves = Vec::new();
        for number in 0..70_u8 {
            assert_eq!(reference(&leaves), tree.root(), "{number} leaves");
            let leaf = leaf_hash(&[number]);
            leaves.push(leaf);
            tree.push(leaf);
            assert_eq!(tree.count(), leaves.len() as u64);
            assert_eq!(tree.subtrees.len() as u32, tree.count().count_ones());
        }
    }

    /// Published test vectors of Certificate Transparency's reference implementation.
    #[test]
    fn roots_are_the_published_ones() {
        let inputs: [&[u8]; 8] = [
            &[],
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[
                0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d,
                0x6e, 0x6f,
            ],
        ];
        let mut tree = MerkleTree::default();
        let mut roots = Vec::new();
        for input in inputs {
            tree.push(leaf_hash(input));
            roots.push(hex(&tree.root()));
        }
        let expected = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        assert_eq!(expected.as_slice(), roots.as_slice());
    }
}
