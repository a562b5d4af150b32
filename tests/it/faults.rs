//! What the service does while its parts, its clients or it itself fail: it says so, loses nothing, and recovers alone.

pub(crate) mod database;
mod killing;
mod process;
mod storage;
mod workers;

use std::time::Duration;

use crate::support::{Backend, Caller, Suite, backend::BackendKind, services::postgres::Stop};

/// No recovery may take longer.
const RECOVERY: Duration = Duration::from_secs(10);

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("sigkill_under_load_loses_nothing_that_was_answered", process::killed);
    suite.everywhere("sigterm_under_load_answers_whatever_was_recorded", process::terminated_under_load);
    // What is left is read from the database behind the service's back, which the embedded one does not allow.
    let real = &[BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(real, "fifty_kills_of_two_processes_leave_nothing_unaccounted", killing::over_and_over);
    // Nothing in these depends on the store.
    let embedded = &[BackendKind::Embedded];
    suite.on(embedded, "sigterm_waits_for_requests_in_flight", process::terminated_with_requests_in_flight);
    suite.on(embedded, "a_policy_edited_under_load_is_in_force_within_a_second", process::policy_edited);
    suite.everywhere("trace_logs_hold_no_secret", process::nothing_secret_is_logged);

    suite.with_own_postgres("a_killed_database_costs_no_answered_upload", |backend: Backend| {
        database::restarted(backend, Stop::Kill)
    });
    suite.with_own_postgres("a_restarted_database_costs_no_answered_upload", |backend: Backend| {
        database::restarted(backend, Stop::Fast)
    });
    suite.with_own_postgres("a_database_that_takes_no_writes_is_unavailable", database::read_only);
    suite.with_own_postgres("a_partition_that_has_to_wait_keeps_nobody_waiting", database::partitions_wait);
    suite.with_own_postgres("rows_leave_the_default_partition_under_load", database::partition_too_late);
    suite.with_own_postgres("a_revocation_is_told_though_its_end_cannot_be", database::revocation_without_end);
    suite.with_own_postgres("a_start_without_database_becomes_ready_with_it", database::absent_at_start);
    suite.with_own_postgres("a_database_that_comes_back_with_another_schema_ends_it", database::other_schema);
    suite.with_own_postgres("a_start_that_waits_for_others_can_be_stopped", database::start_given_up);
    suite.everywhere("a_database_that_hangs_is_answered_in_bounded_time", database::hangs);
    suite.everywhere("late_answers_of_a_slow_database_are_nobody_elses", database::slow);
    suite.everywhere("a_bad_row_fails_alone", database::bad_rows);

    suite.everywhere("without_sts_only_networks_with_a_session_are_served", storage::without_sts);
    suite.everywhere("without_sts_urls_end_with_the_session_they_have", storage::session_runs_out);
    suite.everywhere("while_sts_hangs_nobody_waits_for_anybody_else", storage::sts_hangs);
    suite.everywhere("fifty_requests_from_a_new_network_assume_one_role", storage::single_flight);
    suite.everywhere("a_confirmation_without_store_changes_nothing", storage::confirmation_without_store);

    suite.everywhere("a_repeated_confirmation_waits_for_the_copy_under_way", storage::copy_repeated);
    suite.everywhere("a_stop_waits_for_no_copy", storage::stopped_over_a_copy);

    suite.everywhere("a_blocked_worker_blocks_nobody_else", workers::blocked);
    suite.on(embedded, "clients_that_break_off_cost_nothing", workers::clients_break_off);
    suite.on(embedded, "a_body_that_does_not_come_is_not_waited_for", workers::slow_body);
}

/// The value of a metric without labels.
async fn metric(caller: &Caller, name: &str) -> u64 {
    caller.metric(name).await.unwrap_or_else(|| panic!("no metric {name}"))
}
