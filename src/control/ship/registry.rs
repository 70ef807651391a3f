//! The plugin configurations that ship, by id, as the record of a request names them.
//! Always: one that was deleted is known for a while, as records of requests from before may still be on their way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;
use std::time::Instant;

use uuid::Uuid;

use crate::limits;
use crate::plugins::Instance;
use crate::state::delta::Change;

/// A handle that may be cloned.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<HashMap<Uuid, Known>>>);

struct Known {
    instance: Arc<Instance>,
    /// When it was deleted or disabled.
    gone: Option<Instant>,
}

impl Registry {
    /// Follows accepted changes, before the cores hear of them.
    pub fn follow(&self, changes: &[Change]) {
        let mut known = self.lock();
        for change in changes {
            match change {
                Change::Plugin(spec) if spec.enabled && spec.instance.plugin.ships().is_some() => {
                    known.insert(spec.id, Known { instance: spec.instance.clone(), gone: None });
                }
                Change::Plugin(spec) => forget(&mut known, spec.id),
                Change::PluginGone(id) => forget(&mut known, *id),
                _ => {}
            }
        }
    }

    /// The configuration of that id.
    pub fn get(&self, id: Uuid) -> Option<Arc<Instance>> {
        self.lock().get(&id).map(|known| known.instance.clone())
    }

    /// Forgets for good what was deleted long enough ago.
    pub fn sweep(&self) {
        let kept = Duration::from_millis(limits::SHIP_GONE_KEPT_MS);
        self.lock().retain(|_, known| known.gone.is_none_or(|gone| gone.elapsed() < kept));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Known>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn forget(known: &mut HashMap<Uuid, Known>, id: Uuid) {
    if let Some(known) = known.get_mut(&id) {
        known.gone.get_or_insert_with(Instant::now);
    }
}
