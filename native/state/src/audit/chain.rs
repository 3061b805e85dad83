//! Chain of the lines of an audit log: each line names its place and the hash of the line before it.

use authz_base::hex::hex;

use super::merkle::{MerkleTree, NodeHash, leaf_hash};

/// Longest suffix of a chained line, in bytes: two numbers of 20 digits, a hash, and the names.
const MAX_SUFFIX: usize = 192;

/// Place of a line in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Segment, from 1.
    pub(crate) segment: u64,
    /// Place in the segment, from 0.
    pub(crate) index: u64,
    /// Hash of the line before; for the first of a segment, of the last head of the segment before.
    pub(crate) previous: String,
}

impl Link {
    fn suffix(&self) -> String {
        let Self { segment, index, previous } = self;
        format!(r#""chain":{{"segment":{segment},"index":{index},"previous":"{previous}"}}}}"#)
    }

    /// Reads the place of a line. `None`: the line has none, or not in the form in which it is written.
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        let from = line.len().saturating_sub(MAX_SUFFIX);
        let tail = line.get(from..)?;
        let name = br#""chain":{"segment":"#;
        let at = tail.windows(name.len()).rposition(|window| window == name)?;
        let suffix = std::str::from_utf8(tail.get(at..)?).ok()?;
        let rest = suffix.strip_prefix(r#""chain":{"segment":"#)?;
        let (segment, rest) = rest.split_once(r#","index":"#)?;
        let (index, rest) = rest.split_once(r#","previous":""#)?;
        let previous = rest.strip_suffix(r#""}}"#)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if previous.len() != 64 || !previous.bytes().all(is_hex) {
            return None;
        }
        let link = Self {
            segment: segment.parse().ok()?,
            index: index.parse().ok()?,
            previous: previous.to_owned(),
        };
        (link.suffix() == suffix).then_some(link)
    }
}

/// Chain of a segment that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) segment: u64,
    /// Hash of the last line; of an empty segment, of the head before it.
    pub(crate) last: NodeHash,
    pub(crate) tree: MerkleTree,
}

impl Chain {
    /// An empty segment after a head.
    pub(crate) fn after(segment: u64, head: NodeHash) -> Self {
        Self { segment, last: head, tree: MerkleTree::default() }
    }

    /// Appends a line with its place and a line feed.
    ///
    /// The line is a JSON object.
    pub(crate) fn seal(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let link =
            Link { segment: self.segment, index: self.tree.count(), previous: hex(&self.last) };
        let start = out.len();
        let body = line.strip_suffix(b"}").unwrap_or(line);
        out.extend_from_slice(body);
        if body != b"{" {
            out.push(b',');
        }
        out.extend_from_slice(link.suffix().as_bytes());
        self.push(out.get(start..).unwrap_or_default());
        out.push(b'\n');
    }

    /// Goes on with a line that stands in the file. False: the line does not continue the chain.
    pub(crate) fn resume(&mut self, line: &[u8], link: &Link) -> bool {
        let continues = link.segment == self.segment
            && link.index == self.tree.count()
            && link.previous == hex(&self.last);
        if continues {
            self.push(line);
        }
        continues
    }

    fn push(&mut self, line: &[u8]) {
        self.last = leaf_hash(line);
        self.tree.push(self.last);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn a_sealed_line_is_json_and_names_its_place() {
        let mut chain = Chain::after(3, [7; 32]);
        let mut out = Vec::new();
        for line in [r#"{}"#, r#"{"a":{"b":1}}"#] {
            chain.seal(line.as_bytes(), &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(index, value["chain"]["index"]);
            assert_eq!(index as u64, Link::of(line.as_bytes()).unwrap().index);
        }
        assert_eq!("07".repeat(32), Link::of(lines[0].as_bytes()).unwrap().previous);
        assert_eq!(
            hex(&leaf_hash(lines[0].as_bytes())),
            Link::of(lines[1].as_bytes()).unwrap().previous
        );
        let mut resumed = Chain::after(3, [7; 32]);
        for line in &lines {
            assert!(resumed.resume(line.as_bytes(), &Link::of(line.as_bytes()).unwrap()));
        }
        assert_eq!(chain, resumed);
        assert!(!resumed.resume(lines[1].as_bytes(), &Link::of(lines[1].as_bytes()).unwrap()));
    }

    /// Another spelling of the same place is refused: a verifier must not have to choose.
    #[test]
    fn other_spellings_are_refused() {
        let mut out = Vec::new();
        Chain::after(1, [0; 32]).seal(br#"{"a":1}"#, &mut out);
        let line = String::from_utf8(out).unwrap().trim_end().to_owned();
        assert!(Link::of(line.as_bytes()).is_some());
        for (from, to) in [
            (r#""segment":1"#, r#""segment":01"#),
            (r#""segment":1"#, r#""segment":+1"#),
            (r#""index":0"#, r#""index": 0"#),
            (r#""previous":"0000"#, r#""previous":"000"#),
            (r#""previous":"00"#, r#""previous":"0A"#),
            ("}}", "}} "),
        ] {
            let other = line.replacen(from, to, 1);
            assert_ne!(line, other);
            assert_eq!(None, Link::of(other.as_bytes()), "{other}");
        }
    }
}
