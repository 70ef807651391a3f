//! HOT: per request a chain is walked and, for kinds with configurations of consumers, a few hash lookups are made;
//! nothing is allocated.
//! Which configurations run for a request, and in which order (spec/plugins.md A.3, A.4).
//! Owns: one core's table of enabled configurations. Never: runs one, is shared between cores.
//! Always: a change costs O(1), and what a chain leaves open is only what depends on the consumer.

use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use uuid::Uuid;

use crate::plugins::Instance;
use crate::plugins::Kind;
use crate::plugins::KindIdx;
use crate::plugins::PLUGINS;

/// To what a plugin configuration applies; all `None`: to every request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub route: Option<Uuid>,
    pub service: Option<Uuid>,
    pub consumer: Option<Uuid>,
}

/// A configuration in its place.
pub struct Placed {
    pub instance: Arc<Instance>,
    pub scope: Scope,
}

/// The enabled plugin configurations of one core.
pub struct PluginTable {
    /// All kinds, in the order in which they run.
    order: Vec<KindIdx>,
    by_id: AHashMap<Uuid, Rc<Placed>>,
    by_scope: AHashMap<(Scope, KindIdx), Rc<Placed>>,
    /// How many configurations of a kind each consumer has.
    of_consumer: AHashMap<(Uuid, KindIdx), u32>,
    /// By kind.
    consumer_scoped: Vec<ConsumerScoped>,
}

/// The configurations of one kind that are for one consumer only.
#[derive(Clone, Copy, Default)]
struct ConsumerScoped {
    count: u32,
    /// How many of them look at the request body.
    reading_body: u32,
}

/// The kinds that may run for the requests of one route (or for those that match none), in order.
#[derive(Default)]
pub struct Chain {
    entries: Box<[Entry]>,
    reads_body: bool,
}

impl Entry {
    /// Whether some consumer has a configuration of its own.
    pub fn depends_on_consumer(&self) -> bool {
        self.consumer_scoped
    }
}

/// The turn of one kind.
pub struct Entry {
    pub kind: KindIdx,
    /// What runs unless the consumer has a configuration of its own.
    base: Option<Rc<Placed>>,
    global: Option<Rc<Placed>>,
    /// Whether any consumer has a configuration of this kind.
    consumer_scoped: bool,
}

impl Chain {
    /// The kinds by descending priority, equal ones by descending name.
    #[inline]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether nothing can run.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The configurations without a scope, also those that more specific ones displace after routing.
    pub fn global(&self) -> impl Iterator<Item = &Rc<Placed>> {
        self.entries.iter().filter_map(|entry| entry.global.as_ref())
    }

    /// Whether a configuration that may run looks at the request body.
    #[inline]
    pub fn reads_body(&self) -> bool {
        self.reads_body
    }
}

impl Default for PluginTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PluginTable {
    /// A table without configurations.
    pub fn new() -> Self {
        Self {
            order: order_of(PLUGINS),
            by_id: AHashMap::new(),
            by_scope: AHashMap::new(),
            of_consumer: AHashMap::new(),
            consumer_scoped: vec![ConsumerScoped::default(); PLUGINS.len()],
        }
    }

    /// Adds an enabled configuration, or replaces the one of the same id, wherever that applied.
    pub fn put(&mut self, scope: Scope, instance: Arc<Instance>) {
        self.remove(instance.id);
        let (id, kind) = (instance.id, instance.kind);
        let reads_body = instance.plugin.reads_body();
        let placed = Rc::new(Placed { instance, scope });
        self.by_id.insert(id, placed.clone());
        self.by_scope.insert((scope, kind), placed);
        if let Some(consumer) = scope.consumer {
            *self.of_consumer.entry((consumer, kind)).or_default() += 1;
            let scoped = &mut self.consumer_scoped[usize::from(kind.0)];
            scoped.count += 1;
            scoped.reading_body += u32::from(reads_body);
        }
    }

    /// Removes a configuration, if it is there.
    pub fn remove(&mut self, id: Uuid) {
        let Some(old) = self.by_id.remove(&id) else { return };
        let (scope, kind) = (old.scope, old.instance.kind);
        // Within one change another configuration may have taken the place already.
        if self.by_scope.get(&(scope, kind)).is_some_and(|placed| Rc::ptr_eq(placed, &old)) {
            self.by_scope.remove(&(scope, kind));
        }
        if let Some(consumer) = scope.consumer {
            if let Some(count) = self.of_consumer.get_mut(&(consumer, kind)) {
                *count -= 1;
                if *count == 0 {
                    self.of_consumer.remove(&(consumer, kind));
                }
            }
            let scoped = &mut self.consumer_scoped[usize::from(kind.0)];
            scoped.count -= 1;
            scoped.reading_body -= u32::from(old.instance.plugin.reads_body());
        }
    }

    /// What runs for requests that match `route` of `service`; `route` is `None` for requests that match none, for which
    /// only global configurations run (spec/plugins.md A.5). Holds until the next change of the table.
    pub fn chain(&self, route: Option<Uuid>, service: Option<Uuid>) -> Chain {
        let mut entries = Vec::new();
        let mut reads_body = false;
        for &kind in &self.order {
            let global = self.at(kind, None, None, None).cloned();
            let base = match route {
                None => global.clone(),
                Some(_) => self.base(kind, route, service).or(global.as_ref()).cloned(),
            };
            let scoped = match route {
                None => ConsumerScoped::default(),
                Some(_) => self.consumer_scoped[usize::from(kind.0)],
            };
            reads_body |= scoped.reading_body > 0;
            reads_body |= base.as_ref().is_some_and(|placed| placed.instance.plugin.reads_body());
            if base.is_some() || scoped.count > 0 {
                entries.push(Entry { kind, base, global, consumer_scoped: scoped.count > 0 });
            }
        }
        Chain { entries: entries.into(), reads_body }
    }

    /// Rows 4, 6 and 7 of spec/plugins.md A.3.
    fn base(&self, kind: KindIdx, route: Option<Uuid>, service: Option<Uuid>) -> Option<&Rc<Placed>> {
        let both = service.and_then(|_| self.at(kind, route, service, None));
        let route = || self.at(kind, route, None, None);
        let service = || service.and_then(|_| self.at(kind, None, service, None));
        both.or_else(route).or_else(service)
    }

    /// The configuration that runs for this request; asked when the plugin's turn comes, as earlier plugins find out who
    /// the consumer is. `route` and `service` are those that the chain was made for.
    #[inline]
    pub fn resolve(
        &self,
        entry: &Entry,
        route: Option<Uuid>,
        service: Option<Uuid>,
        consumer: Option<Uuid>,
    ) -> Option<Rc<Placed>> {
        if entry.consumer_scoped
            && let Some(consumer) = consumer
            && let Some(own) = self.of_consumer(entry, route, service, consumer)
        {
            return Some(own.clone());
        }
        entry.base.clone()
    }

    /// Rows 1, 2, 3 and 5 of spec/plugins.md A.3, unless row 4 comes before 5.
    fn of_consumer(
        &self,
        entry: &Entry,
        route: Option<Uuid>,
        service: Option<Uuid>,
        consumer: Uuid,
    ) -> Option<&Rc<Placed>> {
        let kind = entry.kind;
        if !self.of_consumer.contains_key(&(consumer, kind)) {
            return None;
        }
        let consumer = Some(consumer);
        let own = match (route, service) {
            (Some(_), Some(_)) => self
                .at(kind, route, service, consumer)
                .or_else(|| self.at(kind, route, None, consumer))
                .or_else(|| self.at(kind, None, service, consumer)),
            (Some(_), None) => self.at(kind, route, None, consumer),
            (None, _) => None,
        };
        if own.is_some() {
            return own;
        }
        let base_is_of_both =
            entry.base.as_ref().is_some_and(|base| base.scope.route.is_some() && base.scope.service.is_some());
        if base_is_of_both { None } else { self.at(kind, None, None, consumer) }
    }

    #[inline]
    fn at(
        &self,
        kind: KindIdx,
        route: Option<Uuid>,
        service: Option<Uuid>,
        consumer: Option<Uuid>,
    ) -> Option<&Rc<Placed>> {
        self.by_scope.get(&(Scope { route, service, consumer }, kind))
    }
}

/// By descending priority, then descending name (spec/plugins.md A.4).
fn order_of(kinds: &[&Kind]) -> Vec<KindIdx> {
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (kinds[a], kinds[b]);
        b.priority.cmp(&a.priority).then(b.schema.name.cmp(a.schema.name))
    });
    order.into_iter().map(|at| KindIdx(at as u16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::PluginSchema;
    use crate::plugins::Plugin;

    struct Inert {
        reads_body: bool,
    }

    impl Plugin for Inert {
        fn reads_body(&self) -> bool {
            self.reads_body
        }
    }

    fn instance(id: u128, kind: u16, reads_body: bool) -> Arc<Instance> {
        Arc::new(Instance { id: Uuid::from_u128(id), kind: KindIdx(kind), plugin: Box::new(Inert { reads_body }) })
    }

    fn scope(route: u128, service: u128, consumer: u128) -> Scope {
        let some = |n: u128| (n != 0).then(|| Uuid::from_u128(n));
        Scope { route: some(route), service: some(service), consumer: some(consumer) }
    }

    /// What runs, by id, in order.
    fn run(table: &PluginTable, route: u128, service: u128, consumer: u128) -> Vec<u128> {
        let ask = scope(route, service, consumer);
        let chain = table.chain(ask.route, ask.service);
        let placed = chain.entries().iter().filter_map(|e| table.resolve(e, ask.route, ask.service, ask.consumer));
        placed.map(|placed| placed.instance.id.as_u128()).collect()
    }

    /// The table of spec/plugins.md A.3, most specific first: which parts of the scope are set.
    const ROWS: [(bool, bool, bool); 8] = [
        (true, true, true),
        (true, false, true),
        (false, true, true),
        (true, true, false),
        (false, false, true),
        (true, false, false),
        (false, true, false),
        (false, false, false),
    ];

    #[test]
    fn the_most_specific_configuration_wins() {
        let mut table = PluginTable::new();
        let part = |set: bool, n: u128| if set { n } else { 0 };
        for (row, (r, s, c)) in ROWS.iter().enumerate().rev() {
            table.put(scope(part(*r, 7), part(*s, 8), part(*c, 9)), instance(row as u128 + 1, 0, false));
            assert_eq!(run(&table, 7, 8, 9), [row as u128 + 1]);
        }
        for row in 1..=8 {
            assert_eq!(run(&table, 7, 8, 9), [row]);
            table.remove(Uuid::from_u128(row));
        }
        assert!(table.chain(Some(Uuid::from_u128(7)), None).is_empty());
    }

    #[test]
    fn an_unmatched_request_meets_global_configurations_only() {
        let mut table = PluginTable::new();
        table.put(scope(0, 0, 0), instance(1, 0, false));
        table.put(scope(0, 0, 9), instance(2, 0, true));
        table.put(scope(7, 0, 0), instance(3, 0, false));
        assert_eq!(run(&table, 0, 0, 9), [1]);
        assert!(!table.chain(None, None).reads_body());
        let global: Vec<u128> =
            table.chain(Some(Uuid::from_u128(7)), None).global().map(|placed| placed.instance.id.as_u128()).collect();
        assert_eq!(global, [1]);
    }

    #[test]
    fn a_chain_reads_the_body_if_any_of_its_configurations_may() {
        let mut table = PluginTable::new();
        let reads = |table: &PluginTable, route| table.chain(Some(Uuid::from_u128(route)), None).reads_body();
        table.put(scope(7, 0, 0), instance(1, 0, true));
        assert!(reads(&table, 7) && !reads(&table, 6));
        table.put(scope(0, 0, 9), instance(2, 1, true));
        assert!(reads(&table, 6));
        table.put(scope(0, 0, 9), instance(2, 1, false));
        assert!(!reads(&table, 6));
    }

    #[test]
    fn places_may_change_hands_within_one_change() {
        let mut table = PluginTable::new();
        table.put(scope(7, 0, 9), instance(1, 0, false));
        table.put(scope(7, 0, 9), instance(2, 0, false));
        table.remove(Uuid::from_u128(1));
        assert_eq!(run(&table, 7, 0, 9), [2]);
        assert_eq!(run(&table, 7, 0, 8), [0; 0]);
    }

    #[test]
    fn kinds_run_by_descending_priority_then_descending_name() {
        fn inert(
            _: &serde_json::Map<String, serde_json::Value>,
        ) -> Result<Box<dyn Plugin>, crate::plugins::ConfigError> {
            Ok(Box::new(Inert { reads_body: false }))
        }
        let kind = |name, priority| Kind { schema: PluginSchema::new(name, &[]), priority, build: inert };
        let kinds = [kind("b", 5), kind("z", -1), kind("c", 5), kind("a", 10)];
        let order = order_of(&kinds.iter().collect::<Vec<_>>());
        assert_eq!(order, [KindIdx(3), KindIdx(2), KindIdx(0), KindIdx(1)]);
    }

    /// What is put, in no order, searched from the first row of the specification to the last.
    #[derive(Default)]
    struct Twin(Vec<(Scope, Arc<Instance>)>);

    impl Twin {
        fn put(&mut self, scope: Scope, instance: Arc<Instance>) {
            self.remove(instance.id);
            self.0.push((scope, instance));
        }

        fn remove(&mut self, id: Uuid) {
            self.0.retain(|(_, instance)| instance.id != id);
        }

        fn occupied(&self, scope: Scope, kind: KindIdx, but: Uuid) -> bool {
            self.0.iter().any(|(s, i)| *s == scope && i.kind == kind && i.id != but)
        }

        fn run(&self, ask: Scope) -> Vec<u128> {
            let mut found = Vec::new();
            for kind in order_of(PLUGINS) {
                let winner = ROWS.iter().find_map(|(r, s, c)| {
                    let want = Scope {
                        route: ask.route.filter(|_| *r),
                        service: ask.service.filter(|_| *s),
                        consumer: ask.consumer.filter(|_| *c),
                    };
                    let whole =
                        want.route.is_some() == *r && want.service.is_some() == *s && want.consumer.is_some() == *c;
                    self.0.iter().find(|(scope, i)| whole && *scope == want && i.kind == kind)
                });
                found.extend(winner.map(|(_, instance)| instance.id.as_u128()));
            }
            found
        }
    }

    #[test]
    fn the_table_agrees_with_a_linear_search() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut table, mut twin) = (PluginTable::new(), Twin::default());
            for step in 0..150 {
                let id = rng.u128(1..40);
                let at = scope(rng.u128(0..3), rng.u128(0..3), rng.u128(0..3));
                let new = instance(id, rng.u16(0..PLUGINS.len() as u16), rng.bool());
                if rng.u8(0..3) == 0 || twin.occupied(at, new.kind, new.id) {
                    table.remove(new.id);
                    twin.remove(new.id);
                } else {
                    table.put(at, new.clone());
                    twin.put(at, new);
                }
                let ask = scope(rng.u128(1..4), rng.u128(0..4), rng.u128(0..4));
                let got = run(
                    &table,
                    ask.route.map_or(0, |id| id.as_u128()),
                    ask.service.map_or(0, |id| id.as_u128()),
                    ask.consumer.map_or(0, |id| id.as_u128()),
                );
                assert_eq!(got, twin.run(ask), "seed {seed} step {step} {ask:?}");
            }
            for id in 1..40 {
                table.remove(Uuid::from_u128(id));
            }
            assert!(table.by_scope.is_empty() && table.of_consumer.is_empty(), "seed {seed}");
            assert!(table.consumer_scoped.iter().all(|s| s.count == 0 && s.reading_body == 0), "seed {seed}");
        }
    }
}
