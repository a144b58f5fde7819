//! The tests, one file per subject.

pub mod cycles;
mod devices;
mod doctor;
mod gateway;
mod hotplug;
mod interruptions;
mod lifecycle;
mod other_programs;
mod packages;
mod pcscd;
mod permissions;
mod routes;
mod shared_sessions;
mod suspend;

pub use pcscd::MODULE;

use crate::{runner::Test, tests};

/// All tests, in the order in which they run.
pub fn all() -> Vec<Test> {
    Vec::from(tests![
        hotplug::blank_key_plugged_in_beside_a_master_is_one_offer,
        hotplug::master_plugged_in_beside_a_blank_key_is_one_offer,
        hotplug::pair_plugged_in_before_the_daemon_starts_is_one_offer,
        hotplug::plug_starts_the_daemon,
        hotplug::daemon_restart_during_a_wizard_makes_a_new_offer,
        hotplug::keys_with_the_same_usb_serial_are_told_apart,
        hotplug::seven_sub_keys_are_made_on_one_hub_with_the_master,
        hotplug::key_is_recognised_after_usb_deauthorization,
        hotplug::key_is_recognised_after_a_driver_unbind,
        interruptions::wizard_resumes_with_the_master_in_another_port_at_each_step,
        interruptions::wizard_resumes_with_the_blank_key_in_its_port_at_each_step,
        interruptions::another_key_in_the_awaited_port_is_refused,
        interruptions::write_resumes_when_the_candidate_is_back,
        interruptions::write_resumes_with_the_master_in_another_port,
        interruptions::write_resumes_after_the_daemon_is_killed,
        lifecycle::dbus_call_starts_the_daemon,
        lifecycle::idle_daemon_exits_and_a_plug_or_a_call_starts_it,
        lifecycle::daemon_needed_during_idle_exit_is_restarted,
        lifecycle::journal_has_events_and_no_pins,
        lifecycle::watchdog_restarts_a_hung_daemon_and_the_write_resumes,
        devices::reader_without_a_card_is_unusable,
        devices::mass_storage_and_keyboards_are_ignored,
        devices::composite_keyboard_with_a_reader_is_one_unusable_key,
        devices::truncated_descriptors_are_unusable,
        devices::missing_endpoints_are_unusable,
        devices::absurd_message_lengths_are_unusable,
        devices::answers_with_a_wrong_slot_or_sequence_are_refused,
        devices::oversized_answer_to_reset_is_unusable,
        devices::device_that_stalls_every_request_is_unusable,
        devices::silent_device_is_unusable,
        devices::device_unplugged_before_it_is_opened_is_reported_once,
        devices::device_without_a_node_is_unusable,
        cycles::plug_cycles_leak_nothing,
        suspend::suspend_is_delayed_only_during_a_write,
        suspend::daemon_works_after_a_suspend,
        other_programs::key_held_by_pcscd_is_busy_until_released,
        other_programs::key_held_at_its_plug_is_shown_once_released,
        other_programs::key_held_by_gnupg_is_busy_until_released,
        other_programs::leftover_management_authorization_is_reported_after_a_job,
        other_programs::opensc_and_openssl_use_a_sub_key,
        other_programs::web_server_admits_a_sub_key_of_its_family_only,
        other_programs::foreign_access_token_is_never_changed,
        other_programs::foreign_signing_token_is_never_changed,
        routes::main_job_sends_the_same_commands_directly_and_through_pcscd,
        pcscd::key_is_usable_by_the_daemon_and_pcscd_at_once,
        pcscd::two_keys_are_usable_by_the_daemon_and_pcscd_at_once,
        pcscd::identical_keys_in_pcscd_are_never_confused,
        pcscd::exclusively_connected_reader_is_busy_until_released,
        pcscd::ssh_agent_signs_before_and_after_a_job,
        shared_sessions::browser_session_survives_a_job,
        shared_sessions::gnupg_over_pcscd_holds_or_shares_a_key,
        gateway::gateway_admits_a_granted_key_until_it_is_revoked,
        gateway::key_in_the_gateways_own_port_claims_the_lock,
        permissions::root_may_do_everything,
        permissions::active_session_may_do_everything_and_inactive_only_inspect,
        permissions::ssh_user_may_only_inspect,
        permissions::account_without_a_session_has_the_rights_of_a_polkit_rule,
        permissions::active_session_keeps_access_to_the_device_node,
        permissions::other_users_cannot_own_the_bus_name,
        permissions::unpublished_interfaces_are_denied,
        doctor::healthy_machine_has_no_finding,
        doctor::masked_daemon_is_found_and_fixed,
        doctor::masked_udev_rule_is_found_and_fixed,
        doctor::missing_files_are_found_and_restored,
        doctor::missing_group_is_found_and_created,
        doctor::stopped_polkit_is_found_and_started,
        doctor::full_or_read_only_state_directory_is_found,
        doctor::damaged_registry_is_found,
        doctor::key_held_by_another_program_is_found,
        doctor::devices_that_cannot_be_keys_are_found,
        doctor::factory_pin_is_found,
        doctor::last_try_and_blocked_pin_are_found,
        packages::installed_files_pass_check_deb,
        packages::idle_daemon_holds_at_most_7_mb,
        packages::upgrade_restarts_a_running_daemon_and_keeps_its_state,
        packages::removal_keeps_the_state_and_purge_deletes_it,
        packages::device_node_owner_follows_install_and_removal,
    ])
}
