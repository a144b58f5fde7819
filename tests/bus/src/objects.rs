//! A snapshot of the daemon's Keys and serializations with their properties.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use zbus::{OwnedObjectPath, OwnedVariant, fdo::ManagedObjects};

/// One object's interface, with all its properties.
pub struct Object {
    /// Its path.
    pub path: OwnedObjectPath,
    properties: BTreeMap<String, OwnedVariant>,
}

/// Everything below the object manager.
#[derive(Default)]
pub struct Objects {
    /// `org.keywright1.Key`, by path.
    pub keys: Vec<Object>,
    /// `org.keywright1.Serialization`, by path.
    pub serializations: Vec<Object>,
}

impl Object {
    /// A property. Panics if it is missing or has another type than `docs/dbus.md` says.
    #[track_caller]
    pub fn get<T: TryFrom<OwnedVariant>>(&self, property: &str) -> T {
        let value = self.properties.get(property);
        let value = value.unwrap_or_else(|| panic!("{self:?} lacks {property}"));
        let typed = value.try_clone().unwrap().try_into();
        typed.unwrap_or_else(|_| panic!("{property} of {self:?} has another type"))
    }

    /// A property of type `s`.
    #[track_caller]
    pub fn text(&self, property: &str) -> String {
        self.get(property)
    }

    /// A property of type `as`.
    #[track_caller]
    pub fn words(&self, property: &str) -> Vec<String> {
        self.get(property)
    }

    /// A property of type `o`.
    #[track_caller]
    pub fn object(&self, property: &str) -> OwnedObjectPath {
        self.get(property)
    }

    /// A serialization's error name without its prefix; empty if there is no error.
    #[track_caller]
    pub fn outcome(&self) -> String {
        let (name, _text): (String, String) = self.get("Outcome");
        name.strip_prefix("org.keywright1.Error.").unwrap_or(&name).to_owned()
    }
}

impl Objects {
    pub(crate) fn new(managed: ManagedObjects) -> Self {
        let mut objects = Self::default();
        for (path, interfaces) in managed {
            for (interface, properties) in interfaces {
                objects.add(&path, interface.as_str(), properties);
            }
        }
        objects
    }

    /// Adds an object, as `InterfacesAdded` describes it.
    pub(crate) fn add(
        &mut self,
        path: &OwnedObjectPath,
        interface: &str,
        properties: HashMap<String, OwnedVariant>,
    ) {
        self.remove(path, interface);
        if let Some(objects) = self.list(interface) {
            let properties = properties.into_iter().collect();
            objects.push(Object { path: path.clone(), properties });
            objects.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        }
    }

    /// Changes properties of an object, as `PropertiesChanged` gives them.
    pub(crate) fn change(
        &mut self,
        path: &str,
        interface: &str,
        changed: HashMap<String, OwnedVariant>,
    ) {
        let objects = self.list(interface);
        let object =
            objects.and_then(|list| list.iter_mut().find(|object| object.path.as_str() == path));
        if let Some(object) = object {
            object.properties.extend(changed);
        }
    }

    /// Removes an object, as `InterfacesRemoved` names it.
    pub(crate) fn remove(&mut self, path: &OwnedObjectPath, interface: &str) {
        if let Some(objects) = self.list(interface) {
            objects.retain(|object| object.path != *path);
        }
    }

    fn list(&mut self, interface: &str) -> Option<&mut Vec<Object>> {
        match interface {
            "org.keywright1.Key" => Some(&mut self.keys),
            "org.keywright1.Serialization" => Some(&mut self.serializations),
            _ => None,
        }
    }

    /// The Key at this path.
    pub fn key(&self, path: &OwnedObjectPath) -> Option<&Object> {
        self.keys.iter().find(|key| key.path == *path)
    }

    /// The Key with this id.
    pub fn key_with_id(&self, id: &str) -> Option<&Object> {
        self.keys.iter().find(|object| object.text("Id") == id)
    }

    /// The Keys that are plugged in.
    pub fn present(&self) -> impl Iterator<Item = &Object> {
        self.keys.iter().filter(|key| key.get("Present"))
    }

    /// The serialization at this path.
    pub fn serialization(&self, path: &OwnedObjectPath) -> Option<&Object> {
        self.serializations.iter().find(|job| job.path == *path)
    }

    /// The live serialization of this pair.
    pub fn offer(&self, issuer: &OwnedObjectPath, candidate: &OwnedObjectPath) -> Option<&Object> {
        self.serializations.iter().find(|job| {
            let over = ["finished", "failed", "cancelled"].contains(&job.text("Step").as_str());
            !over && job.object("Issuer") == *issuer && job.object("Candidate") == *candidate
        })
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path.as_str())?;
        self.properties.iter().try_for_each(|(name, value)| writeln!(f, "    {name} = {value:?}"))
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.iter().chain(&self.serializations).try_for_each(|object| write!(f, "{object:?}"))
    }
}
