//! Every bound of the program, with its unit in its name. A bound that an operator may change is a setting
//! (`config`), and its default stands here.

// router

/// A route path (or regex) longer than this is refused. It bounds how deep a path trie can nest, which is walked by
/// recursion when a route is taken out.
pub const ROUTE_PATH_BYTES_MAX: usize = 4 << 10;
/// Index entries of one route (hosts x paths); applying a route costs time in proportion to it.
pub const ROUTE_ENTRIES_MAX: usize = 1 << 14;
/// A compiled regex of a route, in bytes of program. Shared by all cores.
pub const ROUTE_REGEX_PROGRAM_BYTES_MAX: usize = 10 << 20;
/// What one core may cache to run one regex quickly, in bytes; beyond it the regex runs slower, never wrong.
pub const ROUTE_REGEX_CACHE_BYTES_MAX: usize = 256 << 10;
/// Parentheses and repetitions of a regex may nest so deep.
pub const ROUTE_REGEX_NESTING_MAX: u32 = 100;
const _: () = assert!(
    ROUTE_ENTRIES_MAX < u16::MAX as usize,
    "positions inside a route are u16"
);
