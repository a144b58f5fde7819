//! The tests, a subject a file.

mod hotplug;
mod interruptions;

use crate::{runner::Test, tests};

/// All of them.
pub fn all() -> Vec<Test> {
    Vec::from(tests![
        hotplug::a_blank_key_beside_a_master_is_one_offer,
        hotplug::a_master_beside_a_blank_key_is_one_offer,
        hotplug::both_plugged_before_the_daemon_starts_are_one_offer,
        hotplug::a_key_plugged_in_starts_the_daemon,
        hotplug::a_daemon_restarted_in_the_middle_of_a_wizard_offers_anew,
        hotplug::two_keys_with_the_same_usb_serial_are_two,
        hotplug::eight_keys_on_one_hub_of_which_seven_become_sub_keys,
        hotplug::a_key_deauthorized_and_authorized_is_the_same_key,
        hotplug::a_key_unbound_and_bound_is_the_same_key,
        interruptions::a_master_pulled_out_at_each_step_goes_on_in_another_port,
        interruptions::a_blank_key_pulled_out_at_each_step_goes_on_in_its_port,
        interruptions::a_wrong_key_in_the_right_port_changes_nothing,
        interruptions::a_key_pulled_out_during_the_write_is_finished_when_it_is_back,
        interruptions::a_daemon_killed_during_the_write_finishes_it,
    ])
}
