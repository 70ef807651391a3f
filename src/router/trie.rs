//! HOT. A radix trie from byte prefixes of the request path to the matchers that may begin there.
//! Owns: the entries of one host name.   Never: allocates in a walk; knows what makes a matcher match.
//! Always: the same shape for the same entries, whatever the order of changes: each node but an empty root has entries,
//! or two children or more; entries descend in order; a ceiling is the highest word at or below its node.

use std::cmp::Ordering;
use std::mem;

use crate::router::entry::Entry;

/// A subtree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The bytes between the parent and this node, then the first byte of each child, ascending: one cache line
    /// decides both whether to enter and where to go on.
    bytes: Box<[u8]>,
    label_len: u32,
    ceiling: u64,
    entries: Vec<Entry>,
    /// In the order of their first bytes.
    children: Vec<Node>,
}

impl Node {
    /// A root with one entry.
    pub fn new(path: &[u8], entry: Entry) -> Self {
        Self {
            bytes: path.into(),
            label_len: path.len() as u32,
            ceiling: entry.rank.word,
            entries: vec![entry],
            children: Vec::new(),
        }
    }

    pub fn insert(&mut self, path: &[u8], entry: Entry) {
        let (mut node, mut rest) = (self, path);
        loop {
            let common = node.label().iter().zip(rest).take_while(|(label, path)| label == path).count();
            if common < node.label().len() {
                node.split(common);
            }
            node.ceiling = node.ceiling.max(entry.rank.word);
            rest = &rest[common..];
            let Some(head) = rest.first() else {
                let at = node.entries.partition_point(|other| other.descending(&entry) == Ordering::Less);
                node.entries.insert(at, entry);
                return;
            };
            match node.heads().binary_search(head) {
                Ok(child) => node = &mut node.children[child],
                Err(at) => {
                    node.add_child(at, Self::new(rest, entry));
                    return;
                }
            }
        }
    }

    /// Takes the entry out. True: the subtree is empty now, and the caller drops it.
    pub fn remove(&mut self, path: &[u8], entry: &Entry) -> bool {
        let Some(rest) = path.strip_prefix(self.label()) else {
            debug_assert!(false, "an entry is removed by the path it was inserted with");
            return false;
        };
        if let Some(head) = rest.first() {
            if let Ok(child) = self.heads().binary_search(head)
                && self.children[child].remove(rest, entry)
            {
                self.drop_child(child);
            }
        } else if let Ok(at) = self.entries.binary_search_by(|other| other.descending(entry)) {
            self.entries.remove(at);
        }
        if self.entries.is_empty() && self.children.len() == 1 {
            self.merge_with_only_child();
        }
        let highest_here = self.entries.first().map_or(0, |first| first.rank.word);
        self.ceiling = self.children.iter().map(|child| child.ceiling).fold(highest_here, u64::max);
        self.entries.is_empty() && self.children.is_empty()
    }

    /// Walks down `path`, through the nodes whose prefix it has.
    pub fn walk<'trie, 'path>(&'trie self, path: &'path [u8]) -> Walk<'trie, 'path> {
        Walk { next: Some(self), path, depth: 0 }
    }

    fn label(&self) -> &[u8] {
        &self.bytes[..self.label_len as usize]
    }

    fn heads(&self) -> &[u8] {
        &self.bytes[self.label_len as usize..]
    }

    fn add_child(&mut self, at: usize, child: Self) {
        let mut bytes = mem::take(&mut self.bytes).into_vec();
        bytes.insert(self.label_len as usize + at, child.bytes[0]);
        self.bytes = bytes.into();
        self.children.insert(at, child);
    }

    fn drop_child(&mut self, at: usize) {
        let mut bytes = mem::take(&mut self.bytes).into_vec();
        bytes.remove(self.label_len as usize + at);
        self.bytes = bytes.into();
        self.children.remove(at);
    }

    /// Makes the node one with the first `at` bytes of its label, and its old self the only child.
    fn split(&mut self, at: usize) {
        let upper = Self {
            bytes: self.bytes[..=at].into(),
            label_len: at as u32,
            ceiling: self.ceiling,
            entries: Vec::new(),
            children: Vec::with_capacity(2),
        };
        let mut lower = mem::replace(self, upper);
        lower.bytes = lower.bytes[at..].into();
        lower.label_len -= at as u32;
        self.children.push(lower);
    }

    fn merge_with_only_child(&mut self) {
        if let Some(mut child) = self.children.pop() {
            child.bytes = [self.label(), &child.bytes].concat().into();
            child.label_len += self.label_len;
            *self = child;
        }
    }
}

/// The nodes on the way down one path.
pub(super) struct Walk<'trie, 'path> {
    next: Option<&'trie Node>,
    path: &'path [u8],
    depth: usize,
}

impl<'trie> Walk<'trie, '_> {
    /// The entries of the next node that has some, and how many bytes of the path lead to it. Ends early where no word
    /// further down reaches `floor`.
    pub fn next(&mut self, floor: u64) -> Option<(&'trie [Entry], usize)> {
        loop {
            let node = self.next.take()?;
            if node.ceiling < floor {
                return None;
            }
            let rest = self.path.get(self.depth..)?.strip_prefix(node.label())?;
            self.depth += node.label().len();
            if let Some(head) = rest.first()
                && let Ok(child) = node.heads().binary_search(head)
            {
                self.next = node.children.get(child);
            }
            if !node.entries.is_empty() {
                return Some((&node.entries, self.depth));
            }
        }
    }
}
