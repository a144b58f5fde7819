//! `group …`: manages named groups of Locks.

use keywright_client::{Client, ErrorName, GroupRow, client::LockFilter};
use serde::Serialize;

use crate::{
    args::GroupCommand,
    failure::Failure,
    family::family,
    key::as_strs,
    listing::locks_table,
    lookup::{self, short},
    output::Output,
    table::Table,
};

/// Output of `--json` for a group that was changed or deleted.
#[derive(Serialize)]
struct Done<'a> {
    family: &'a str,
    name: &'a str,
    locks: u32,
}

/// Runs the command.
pub async fn run(
    client: &Client,
    command: GroupCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        GroupCommand::List => {
            let mut groups = client.list_groups(None).await?;
            groups
                .sort_by(|one, other| (&one.name, &one.family).cmp(&(&other.name, &other.family)));
            output.show(&groups, || table(&groups))
        }
        GroupCommand::Show { name, family: of } => {
            let group = find(client, &name, of.as_deref()).await?;
            let (family, group) = (Some(group.family), Some(group.name));
            let filter = LockFilter { family, group, ..LockFilter::default() };
            let locks = client.list_locks(&filter).await?;
            output.show(&locks, || match locks.is_empty() {
                true => format!("{name} has no Locks."),
                false => locks_table(&locks),
            })
        }
        GroupCommand::Set { name, add, remove, family: of } => {
            let family = resolve_family(client, &name, of.as_deref()).await?;
            let add = lookup::lock_ids(client, &add).await?;
            let remove = lookup::lock_ids(client, &remove).await?;
            let locks = client.set_group(&family, &name, &as_strs(&add), &as_strs(&remove)).await?;
            output.show(&Done { family: &family, name: &name, locks }, || {
                format!("{name} now has {locks} Locks")
            })
        }
        GroupCommand::Remove { name, family: of } => {
            let group = find(client, &name, of.as_deref()).await?;
            client.remove_group(&group.family, &group.name).await?;
            let done = Done { family: &group.family, name: &name, locks: group.locks };
            output.show(&done, || format!("{name} is deleted; its Locks and all rights stay"))
        }
    }
}

/// Resolves the family: the given one, else the one that has a group of this name, else the only one.
async fn resolve_family(client: &Client, name: &str, of: Option<&str>) -> Result<String, Failure> {
    let all = client.list_groups(None).await?;
    let mut called = all.iter().filter(|group| of.is_none() && group.name == name);
    match (called.next(), called.next()) {
        (Some(only), None) => Ok(only.family.clone()),
        _ => family(client, of).await,
    }
}

/// Finds the group of this name, in the given family or in all.
async fn find(client: &Client, name: &str, of: Option<&str>) -> Result<GroupRow, Failure> {
    let of = match of {
        Some(of) => Some(family(client, Some(of)).await?),
        None => None,
    };
    let all = client.list_groups(of.as_deref()).await?;
    let mut called = all.into_iter().filter(|group| group.name == name);
    match (called.next(), called.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure::named(
            ErrorName::NotFound,
            format!("there is no group {name:?}; see `keywrightctl group list`"),
        )),
        (Some(one), Some(other)) => Err(Failure::refused(format!(
            "several families have a group {name:?}; choose one with --family:\n  {}\n  {}",
            one.family, other.family
        ))),
    }
}

fn table(groups: &[GroupRow]) -> String {
    if groups.is_empty() {
        return "No groups yet. Create one with `keywrightctl group set NAME --add LOCK`.".into();
    }
    let mut table = Table::new(["NAME", "LOCKS", "FAMILY"]);
    for group in groups {
        table.row([group.name.clone(), group.locks.to_string(), short(&group.family)]);
    }
    table.to_string()
}
