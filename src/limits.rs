//! Every bound of the program, with its unit in its name. A bound that an operator may change is a setting
//! (`config`), and its default stands here.

/// First read of a client connection: holds nearly every request head with a small body. Grows up to the head limit.
pub const CLIENT_READ_BYTES: usize = 4 << 10;
/// First read of a connection of which nothing is known: a client that sends its head slowly holds no more until it does.
pub const FIRST_READ_BYTES: usize = 1 << 10;
/// A client connection on which nothing comes for so long gives up its task and its buffer, and keeps its descriptor.
pub const PARK_MS: u64 = 500;
/// Reads of idle clients that a core withdraws between two sweeps. Each takes a second descriptor until the kernel has let go of
/// the first.
pub const WITHDRAWALS_PER_SWEEP_MAX: u32 = 128;
/// Room for a response head and a small body, read in one piece.
pub const UPSTREAM_READ_BYTES: usize = 20 << 10;
/// Room kept in front of a response, so that the rewritten head and the body leave in one write without a copy of the body.
/// The upstream's own head makes room too, so this is for what ours is longer; a still longer one costs a copy.
pub const RESPONSE_HEADROOM_BYTES: usize = 512;
/// Each of the two buffers that carry a streamed body.
pub const STREAM_BUFFER_BYTES: usize = 64 << 10;
/// Bytes of an unwanted request body that are read and thrown away so that the connection can be kept; beyond it is closed.
pub const REQUEST_BODY_DRAINED_BYTES: u64 = 256 << 10;
/// How long the rest of a refused request is listened to before the connection is closed, so that the answer is not lost to
/// a reset.
pub const LINGER_MS: u64 = 2_000;
/// Interim (1xx) answers that one upstream may send before its answer.
pub const INTERIM_RESPONSES_MAX: usize = 16;
/// Period of the sweep that looks for overdue sockets, and so the precision of every data-plane timeout.
pub const SWEEP_MS: u64 = 50;
/// Longest preface of the PROXY protocol that is read, with what it carries beside the addresses.
pub const PROXY_PREFACE_BYTES_MAX: usize = 4 << 10;
/// Sweeps that connections cut short by the end of a drain get to finish.
pub const STOP_SWEEPS: u32 = 10;
/// How long a request waits for the first resolution of its service's host name.
pub const FIRST_RESOLUTION_MS: u64 = 5_000;
/// Searches for host names that are under way at a time; more wait for their turn.
pub const NAME_SEARCHES_MAX: usize = 512;
/// How long a write waits for the acknowledgement of a core before that core is reported instead of waited for.
pub const ACKNOWLEDGE_MS: u64 = 5_000;
/// Finished-request records gathered by a core before they are handed to the log writer.
pub const RECORD_BATCH_BYTES: usize = 64 << 10;
/// Batches of records that may wait for the log writer; beyond it records are dropped and counted.
pub const RECORD_BATCHES_WAITING_MAX: usize = 64;
/// Entries of a round-robin list. Weights whose exact list would be longer are scaled down to fit.
pub const RING_ENTRIES_MAX: usize = 1 << 16;
/// How long the health of an address that went out of use is remembered.
pub const VITALS_KEPT_MS: u64 = 300_000;
/// Changes of availability that are remembered of one address, and of how many addresses.
pub const HISTORY_EVENTS_MAX: usize = 16;
pub const HISTORIES_MAX: usize = 10_000;
/// For how long an address that is available again gets no more than its share by weight from algorithms that would
/// otherwise send it everything.
pub const RECOVERY_MS: u64 = 10_000;
/// Submission queue of one core's ring; its completion queue is four times as long.
pub const URING_ENTRIES: u32 = 4096;

const _: () = assert!(FIRST_READ_BYTES < CLIENT_READ_BYTES && SWEEP_MS < PARK_MS);
const _: () = assert!(RESPONSE_HEADROOM_BYTES < UPSTREAM_READ_BYTES, "a response needs room behind the headroom");
// ---- HTTP messages (`http`) ----

/// Longest request line accepted by default, bytes without its CRLF. Above: 414.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;
/// Longest single field line of a request accepted by default, bytes without its CRLF. Above: 400, as Kong says.
pub const REQUEST_FIELD_BYTES_MAX: usize = 8 << 10;
/// Longest request head accepted by default, bytes with the empty line that ends it. Above: 400, as Kong says.
pub const REQUEST_HEAD_BYTES_MAX: usize = 48 << 10;
/// Most fields of a request head accepted by default. Above: 431.
pub const REQUEST_FIELDS_MAX: usize = 128;
/// Longest response head accepted from an upstream by default, bytes with the empty line that ends it. Above: 502.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 40 << 10;
/// Most fields of a response head accepted by default. Above: 502.
pub const RESPONSE_FIELDS_MAX: usize = 256;
/// Most fields of any head, whatever the settings say: the parser's table lives on the stack.
pub const FIELDS_MAX: usize = 256;
/// Largest body length that a head may announce, bytes: what fits a signed 64-bit offset on every peer.
pub const BODY_LENGTH_MAX: u64 = i64::MAX as u64;

/// Most hexadecimal digits of a chunk size, leading zeros included.
pub const CHUNK_SIZE_DIGITS_MAX: u32 = 16;
/// Most bytes of extensions of one chunk, and of all chunks per MiB of body begun.
pub const CHUNK_EXTENSION_BYTES_MAX: u64 = 4 << 10;
/// Most bytes of the trailer section of a chunked body.
pub const TRAILER_BYTES_MAX: u32 = 8 << 10;

const _: () = assert!(REQUEST_FIELDS_MAX <= FIELDS_MAX && RESPONSE_FIELDS_MAX <= FIELDS_MAX);
const _: () = assert!(REQUEST_LINE_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);
const _: () = assert!(REQUEST_FIELD_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);
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
/// Longest expression of a route, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 64 << 10;
/// Parentheses of an expression may nest so deep: it is read and evaluated by recursion.
pub const EXPRESSION_NESTING_MAX: usize = 64;
/// Index entries of one expression. One that would need more is filed under what it demands less exactly.
pub const EXPRESSION_GUARDS_MAX: usize = 256;
/// Parentheses and repetitions of a regex may nest so deep.
pub const ROUTE_REGEX_NESTING_MAX: u32 = 100;
const _: () = assert!(ROUTE_ENTRIES_MAX < u16::MAX as usize, "positions inside a route are u16");
/// Exchanges (a request's working memory) that a core keeps for reuse.
pub const EXCHANGES_KEPT_MAX: usize = 1024;
/// An exchange that has grown beyond this is freed instead of kept.
pub const EXCHANGE_KEPT_BYTES_MAX: usize = 256 << 10;
/// Room left in a batch for the next record, so that a batch does not grow.
pub const RECORD_ROOM_BYTES: usize = 2 << 10;
/// Longest gap between two writes of a response to a client that does not read.
pub const CLIENT_WRITE_MS: u64 = 60_000;
/// How long a client that takes a response more slowly than it comes may keep the upstream waiting, all pieces together.
/// Then what it has not taken goes to a file, if the route buffers responses.
pub const UPSTREAM_HELD_MS: u64 = 100;
/// Longest text about the times of a request that a client elsewhere is sent in a header.
pub const DEBUG_OUTPUT_BYTES_MAX: usize = 4 << 10;
/// Pause of a core's accept loop when the system is out of descriptors.
pub const ACCEPT_PAUSE_MS: u64 = 20;
/// Idle client connections that are ended at a time when descriptors are short, or one in 64 of them.
pub const SPARED_AT_LEAST: usize = 8;
/// Descriptors that clients leave to upstreams, files and the control plane: a quarter of all, but no more than this.
pub const DESCRIPTORS_RESERVED_MAX: u64 = 4096;
/// How many versions the store's log of changes keeps.
pub const CHANGE_LOG_VERSIONS_MAX: u64 = 100_000;
/// How deep a JSON body of the Admin API may nest.
pub const ADMIN_JSON_DEPTH_MAX: usize = 64;
/// How deep brackets of a YAML text may seem to nest before it is read at all; looser than the depth of values, since
/// brackets of plain texts may be counted.
pub const YAML_FLOW_DEPTH_MAX: usize = 4 * ADMIN_JSON_DEPTH_MAX;
/// How large the values of a YAML text may become when its aliases are written out: this, and so many times the text.
pub const YAML_EXPANDED_BYTES_MAX: usize = 32 << 20;
pub const YAML_EXPANDED_TIMES_MAX: usize = 32;
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

// ---- Plugins (`plugins`) ----

/// A response body up to this size is held in memory when a plugin wants it whole; a longer one passes the plugin by.
pub const RESPONSE_BODY_HELD_BYTES: usize = 8 << 20;
/// Questions of one core that may wait for an answer; beyond it a question fails at once.
pub const QUESTIONS_WAITING_MAX: usize = 16 << 10;
/// Full records gathered by a core before they are handed over to be shipped.
pub const FULL_BATCH_BYTES: usize = 64 << 10;
/// Batches of full records that may wait to be taken apart; beyond it they are dropped and counted.
pub const FULL_BATCHES_WAITING_MAX: usize = 256;
/// Room left in a batch for the next full record, so that a batch seldom grows.
pub const FULL_RECORD_ROOM_BYTES: usize = 8 << 10;
/// Room for a copy of a response head, for plugins that ship; a longer one makes it grow.
pub const SENT_HEAD_ROOM_BYTES: usize = 2 << 10;
/// How long what a plugin told without waiting may take.
pub const TOLD_MS: u64 = 10_000;
/// Encoded name and password of a request that are decoded without an allocation.
pub const BASIC_CREDENTIALS_STACK_BYTES: usize = 512;
/// Routes that a core hands over at once to an operator who asks why one of them does not match: its requests wait for
/// some tens of microseconds.
pub const EXPLAIN_ROUTES_AT_ONCE: usize = 500;
/// Routes that an explanation names beside the one that matched.
pub const EXPLAIN_CANDIDATES_MAX: usize = 10;
/// Identifiers (consumers, addresses, ...) whose uses are counted at a time; beyond it the stalest are forgotten.
pub const COUNTED_IDENTIFIERS_MAX: usize = 1 << 20;
/// How far the clocks of two cores may be apart, in seconds.
pub const CLOCKS_APART_S: u64 = 2;
/// Identifiers that a core remembers the place of.
pub const COUNT_HANDLES_PER_CORE_MAX: usize = 64 << 10;
/// Answers of servers about credentials that a core remembers; about 100 bytes each.
pub const RECENT_FINDINGS_PER_CORE_MAX: usize = 16 << 10;
/// How long an LDAP server that failed is left alone; questions to it fail at once meanwhile.
pub const LDAP_REST_MS: u64 = 1000;
/// What a request waits for an LDAP server beyond the server's own timeouts, so that they strike first.
pub const LDAP_LATE_MS: u64 = 500;
/// Connections to one LDAP server; more questions wait for their turn.
pub const LDAP_CONNECTIONS_MAX: usize = 64;
/// How often connections to LDAP servers are looked at for those that nobody uses.
pub const LDAP_LOOK_MS: u64 = 1000;
/// Longest answer of an LDAP server.
pub const LDAP_ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a response waits until the session that its cookie names is written.
pub const SESSION_WRITE_MS: u64 = 2 * ACKNOWLEDGE_MS;
/// How long a request for a token waits until that is written.
pub const TOKEN_WRITE_MS: u64 = 2 * ACKNOWLEDGE_MS;
/// How long a request waits until a hashed secret is verified, with those before it; and how many are verified at a time.
pub const SECRET_VERIFIED_MS: u64 = 10_000;
pub const SECRETS_VERIFIED_AT_ONCE: usize = 2;
/// Longest cookie that browsers keep, name and value.
pub const COOKIE_BYTES_MAX: usize = 4 << 10;
/// How long an authorization code counts.
pub const AUTHORIZATION_CODE_S: u64 = 300;
/// Questions of all cores that are being answered at a time, and as many more that wait; beyond it they fail at once.
pub const QUESTIONS_UNDER_WAY_MAX: usize = 16 << 10;
/// How long a Redis server that failed is left alone; questions to it fail at once meanwhile.
pub const REDIS_REST_MS: u64 = 1000;
/// How long a connection to Redis is kept that nobody uses.
pub const REDIS_IDLE_MS: u64 = 60_000;
/// Counters that are raised in Redis by one command.
pub const REDIS_COUNTERS_PER_CALL_MAX: usize = 500;
/// What a request waits for Redis beyond the server's own timeouts, so that they strike first.
pub const REDIS_LATE_MS: u64 = 500;
/// How long the first request of a configuration waits until its counters are synchronised from then on.
pub const SYNCHRONISATION_BEGINS_MS: u64 = 1000;
/// Sets of figures by route, service, consumer and status that a core counts for prometheus; what would need another one is
/// not counted, which a metric tells.
pub const METRIC_SERIES_PER_CORE_MAX: usize = 20_000;
/// Bytes that may wait in one queue of a plugin that ships, unless its `max_bytes` says less or more.
pub const SHIP_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Deliveries of one queue that may be under way at a time, where each entry goes alone; idle connections kept for them.
pub const SHIP_SENDS_MAX: usize = 64;
/// Routes, services and consumers whose texts the shipper keeps in readable form.
pub const SHIP_ENTITIES_MAX: usize = 4096;
/// How long a deleted plugin configuration still gets the records of requests from before.
pub const SHIP_GONE_KEPT_MS: u64 = 30_000;
/// How often the shipper looks for configurations that are no more.
pub const SHIP_SWEEP_MS: u64 = 1_000;
/// How often it is asked whether a closing queue is empty.
pub const SHIP_CLOSE_LOOK_MS: u64 = 20;
/// How long sending figures may take.
pub const SHIP_STATS_TIMEOUT_MS: u64 = 10_000;
/// How long datagrams go where the name of their destination led, before it is looked up again.
pub const SHIP_UDP_ADDRESS_KEPT_MS: u64 = 10_000;
/// How long an idle connection to a collector of spans is kept.
pub const SHIP_COLLECTOR_IDLE_MS: u64 = 60_000;
/// Longest answer of a collector that is read.
pub const SHIP_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of responses that proxy-cache keeps, where `mem_cache_size` says nothing.
pub const CACHE_BYTES_DEFAULT: usize = 128 << 20;
/// The largest response that proxy-cache keeps; never more than an eighth of the cache.
pub const CACHED_BODY_BYTES_MAX: usize = 16 << 20;
/// Kept responses that a core finds without asking the table of all cores.
pub const CACHE_HANDLES_PER_CORE_MAX: usize = 64 << 10;
/// Largest pattern of a rule that a collector of API analytics sends, compiled.
pub const RULE_PATTERN_BYTES_MAX: usize = 1 << 20;
/// How often such a collector is asked what it wants to be governed.
pub const GOVERNANCE_FETCHED_MS: u64 = 60_000;
/// Largest body that is told of in readable form, once it is inflated.
pub const SHIP_INFLATED_BYTES_MAX: usize = 1 << 20;
