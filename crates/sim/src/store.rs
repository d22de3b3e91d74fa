//! The simulated store: plain string keys with WATCH and EXEC as in Redis. A write makes every EXEC abort that watched the
//! key before it, also one that is still on its way.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What EXEC writes: a value, or `None` for a key that is removed.
pub type Writes = Vec<(String, Option<Bytes>)>;

#[derive(Clone, Debug, Default)]
struct Cell {
    value: Option<Bytes>,
    /// How often the key was touched.
    touched: u64,
}

/// One data set.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    cells: BTreeMap<String, Cell>,
}

/// Keys and how often they had been touched when they were watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch(Vec<(String, u64)>);

impl SimStore {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.cells.get(key)?.value.as_ref()
    }

    /// All keys with a value from a prefix on, in order.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Bytes)> {
        self.cells
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(|(key, cell)| Some((key.as_str(), cell.value.as_ref()?)))
    }

    /// WATCH.
    pub fn watch<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Watch {
        let touched = |key: &str| self.cells.get(key).map_or(0, |cell| cell.touched);
        Watch(keys.into_iter().map(|key| (key.to_owned(), touched(key))).collect())
    }

    /// Whether no watched key was touched since.
    pub fn is_unchanged(&self, watch: &Watch) -> bool {
        watch.0.iter().all(|(key, was)| self.cells.get(key).map_or(0, |cell| cell.touched) == *was)
    }

    /// EXEC of MSET and UNLINK; false when a watched key was touched.
    pub fn exec(&mut self, watch: &Watch, writes: &Writes) -> bool {
        let unchanged = self.is_unchanged(watch);
        if unchanged {
            for (key, value) in writes {
                match value {
                    Some(value) => self.set(key, value.clone()),
                    None => self.unlink(key),
                }
            }
        }
        unchanged
    }

    /// SET.
    pub fn set(&mut self, key: &str, value: Bytes) {
        let cell = self.cells.entry(key.to_owned()).or_default();
        cell.value = Some(value);
        cell.touched += 1;
    }

    /// UNLINK; a key that is not there is not touched.
    pub fn unlink(&mut self, key: &str) {
        if let Some(cell) = self.cells.get_mut(key).filter(|cell| cell.value.is_some()) {
            cell.value = None;
            cell.touched += 1;
        }
    }
}

impl Watch {
    /// The same without some of the keys.
    #[must_use]
    pub fn without(mut self, leave_out: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|(key, _)| !leave_out(key));
        self
    }
}
