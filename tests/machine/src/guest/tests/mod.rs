//! The tests, a subject a file.

pub mod cycles;
mod devices;
mod doctor;
mod hotplug;
mod interruptions;
mod life;
mod locks;
mod neighbours;
mod packages;
mod pcscd;
mod people;
mod routes;
mod sharing;
mod sleep;

pub use pcscd::MODULE;

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
        interruptions::a_master_pulled_out_during_the_write_goes_on_in_another_port,
        interruptions::a_daemon_killed_during_the_write_finishes_it,
        life::a_call_starts_the_daemon,
        life::a_daemon_that_nobody_needs_ends_and_is_back_by_a_plug_and_by_a_call,
        life::a_daemon_that_is_needed_while_it_ends_is_started_anew,
        life::what_happens_is_in_the_journal_and_no_pin_is,
        life::a_daemon_that_hangs_during_the_write_is_started_anew_and_finishes_it,
        devices::a_reader_without_a_card_is_unusable_and_no_more,
        devices::a_stick_and_a_keyboard_are_none_of_our_business,
        devices::a_keyboard_that_is_also_a_reader_is_one_key_for_its_reader,
        devices::descriptors_cut_short,
        devices::endpoints_that_are_missing,
        devices::longest_messages_of_nothing_and_of_everything,
        devices::answers_of_another_slot_and_to_another_question,
        devices::an_answer_to_reset_of_200_bytes,
        devices::a_stall_on_every_request,
        devices::a_device_that_answers_nothing,
        devices::a_device_that_is_gone_before_it_is_opened,
        devices::a_device_without_a_node,
        cycles::fifty_cycles_of_two_keys_leave_nothing_behind,
        sleep::a_suspend_is_put_off_only_while_a_key_is_written,
        sleep::after_a_suspend_everything_is_as_before,
        neighbours::a_key_that_pcscd_holds_is_busy_and_is_taken_up_again,
        neighbours::a_key_that_is_held_when_it_comes_is_shown_when_it_is_let_go,
        neighbours::a_key_that_gnupg_holds_is_busy_and_is_taken_up_again,
        neighbours::right_after_a_job_others_see_both_keys_and_what_is_still_authorized_is_said,
        neighbours::other_peoples_tools_use_a_sub_key,
        neighbours::a_web_server_lets_a_sub_key_in_under_its_family_and_no_other,
        neighbours::somebody_elses_token_stays_as_it_is_byte_for_byte,
        neighbours::somebody_elses_signing_token_stays_as_it_is_byte_for_byte,
        routes::the_main_job_goes_straight_to_tokens_and_through_pcscd_alike,
        pcscd::a_key_plugged_in_beside_pcscd_is_in_both_hands,
        pcscd::two_keys_plugged_in_together_beside_pcscd_are_in_both_hands,
        pcscd::two_look_alikes_in_pcscd_are_never_swapped,
        pcscd::a_reader_that_a_program_keeps_to_itself_is_busy_until_it_lets_go,
        pcscd::an_ssh_agent_signs_before_and_after_our_jobs,
        sharing::a_browser_goes_on_before_during_and_after_a_job,
        sharing::gnupg_over_pcscd_keeps_a_key_or_shares_it,
        locks::a_gateway_lets_in_whom_it_was_told_until_they_are_revoked,
        locks::a_key_in_a_gateways_own_port_makes_it_one_of_its_family,
        people::root_may_everything,
        people::the_person_at_the_seat_may_everything_and_the_one_behind_only_looks,
        people::a_user_over_ssh_only_looks,
        people::an_account_without_a_session_may_what_a_rule_file_gives_it,
        people::the_person_at_the_seat_may_still_use_a_token,
        people::nobody_else_gets_the_name,
        people::nobody_calls_what_is_not_offered,
        doctor::a_machine_in_order_has_no_finding,
        doctor::a_daemon_that_cannot_run,
        doctor::a_udev_rule_that_is_masked,
        doctor::files_that_are_missing,
        doctor::a_group_that_is_missing,
        doctor::a_polkit_that_does_not_run,
        doctor::a_state_directory_that_takes_nothing,
        doctor::a_damaged_registry,
        doctor::a_key_that_another_program_holds,
        doctor::devices_that_cannot_be_keys,
        doctor::a_pin_from_the_factory,
        doctor::a_pin_that_is_blocked,
        packages::what_is_installed_is_as_it_should_be,
        packages::a_daemon_that_waits_holds_less_than_5_mb,
        packages::an_upgrade_restarts_a_daemon_that_runs_and_keeps_its_state,
        packages::a_removal_keeps_the_state_and_a_purge_leaves_nothing,
        packages::a_key_that_is_plugged_in_is_taken_by_an_install_and_given_back_by_a_removal,
    ])
}
