//! What the daemon's objects say at one moment.

use std::{collections::BTreeMap, fmt};

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
    /// A property, which the contract says is there and of this type.
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

    /// A serialization's error name without its prefix, empty where none.
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
                let kind = match interface.as_str() {
                    "org.keywright1.Key" => &mut objects.keys,
                    "org.keywright1.Serialization" => &mut objects.serializations,
                    _ => continue,
                };
                let properties = properties.into_iter().collect();
                kind.push(Object { path: path.clone(), properties });
            }
        }
        objects.keys.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        objects.serializations.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        objects
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
