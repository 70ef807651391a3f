//! HOT: borrows, and writes on the stack.
//! For whom a configuration counts: its own scope, and the identifier of the request (spec/plugins.md C.1).

use uuid::Uuid;

use crate::plugins::identifier::Identifier;
use crate::plugins::identifier::LimitBy;
use crate::plugins::view::View;

/// What tells one counter from another.
pub struct CountedFor<'a> {
    /// Of the configuration's scope; nil: none.
    pub route: Uuid,
    pub service: Uuid,
    pub identifier: &'a [u8],
}

impl CountedFor<'_> {
    /// Calls with what a request counts for.
    pub fn with<T>(view: &View<'_>, limit_by: &LimitBy, call: impl FnOnce(&CountedFor<'_>) -> T) -> T {
        let (route, service) = (view.scope.route.unwrap_or_default(), view.scope.service.unwrap_or_default());
        let mut room = Identifier::default();
        let identifier = limit_by.of_request(view, &mut room);
        call(&CountedFor { route, service, identifier })
    }

    /// For a key of [`crate::plugins::counts::CoreCounts`]; `plugin` keeps plugins apart.
    pub fn parts<'p>(&'p self, plugin: &'p [u8]) -> [&'p [u8]; 4] {
        [plugin, self.route.as_bytes(), self.service.as_bytes(), self.identifier]
    }

    /// What the names of the counters in Redis begin with: those of Kong, so that both may count in the same.
    pub fn redis_name(&self, plugin: &str) -> String {
        format!("{plugin}:{}:{}:{}", self.route, self.service, String::from_utf8_lossy(self.identifier))
    }
}
