//! Every bound of the program, with its unit in its name. A bound that an operator may change is a setting
//! (`config`), and its default stands here.

/// How many versions the store's log of changes keeps.
pub const CHANGE_LOG_VERSIONS_MAX: u64 = 100_000;
/// Largest body of an Admin API request.
pub const ADMIN_BODY_BYTES_MAX: usize = 10 << 20;
/// How deep a JSON body of the Admin API may nest.
pub const ADMIN_JSON_DEPTH_MAX: usize = 64;
/// Most arguments in a query, and in a form.
pub const ADMIN_ARGUMENTS_MAX: usize = 1000;
/// Rows per page of a collection.
pub const PAGE_ROWS_DEFAULT: usize = 100;
pub const PAGE_ROWS_MAX: usize = 1000;
/// Most tags in one filter.
pub const FILTER_TAGS_MAX: usize = 5;
/// Longest time to live of a row, in seconds.
pub const TTL_SECONDS_MAX: u64 = 100_000_000;
/// How long a client of the Admin API may take until the next request head is whole, idle time included, in milliseconds.
pub const ADMIN_HEAD_MS_MAX: u64 = 75_000;
/// Connections served at a time by one listener of the Admin API; more wait to be accepted.
pub const ADMIN_CONNECTIONS_MAX: usize = 1024;
/// How long a client of the Admin API may take for a whole request body, in milliseconds.
pub const ADMIN_BODY_MS_MAX: u64 = 60_000;
