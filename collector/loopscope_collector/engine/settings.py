"""Under which settings statements run: what readers may choose, what they get, what inserts get.

Pure; used by `server` and `guard`.
"""

import os
from collections.abc import Mapping

from loopscope_collector.engine.config import EngineConfig, words
from loopscope_collector.engine.errors import READONLY, ClickHouseError

READER_SETTINGS = words(
    """
    allow_experimental_analyzer cast_keep_nullable cast_string_to_dynamic_use_inference
    count_distinct_implementation date_time_input_format date_time_output_format distinct_overflow_mode
    empty_result_for_aggregation_by_empty_set enable_analyzer extremes final force_index_by_date
    force_primary_key group_by_overflow_mode group_by_use_nulls input_format_null_as_default join_algorithm
    join_use_nulls limit max_block_size max_bytes_before_external_group_by
    max_bytes_before_external_sort max_bytes_in_distinct max_bytes_in_join max_bytes_in_set max_bytes_to_read
    max_columns_to_read max_execution_time max_memory_usage max_result_bytes max_result_rows
    max_rows_in_distinct max_rows_in_join max_rows_in_set max_rows_to_group_by max_rows_to_read max_threads
    offset optimize_move_to_prewhere optimize_read_in_order optimize_use_projections
    output_format_arrow_compression_method output_format_arrow_fixed_string_as_fixed_byte_array
    output_format_arrow_low_cardinality_as_dictionary output_format_arrow_string_as_string
    output_format_csv_crlf_end_of_line output_format_decimal_trailing_zeros
    output_format_json_quote_64bit_floats output_format_json_quote_64bit_integers
    output_format_json_quote_decimals output_format_json_quote_denormals
    output_format_json_named_tuples_as_objects output_format_json_escape_forward_slashes
    output_format_json_array_of_rows output_format_native_encode_types_in_binary_format
    output_format_native_use_flattened_dynamic_and_json_serialization output_format_native_write_json_as_string
    output_format_parquet_compression_method output_format_parquet_string_as_string
    output_format_parquet_row_group_size output_format_pretty_max_rows output_format_pretty_color
    output_format_pretty_row_numbers output_format_write_statistics prefer_column_name_to_alias
    preferred_block_size_bytes query_plan_direct_read_from_text_index
    query_plan_max_limit_for_lazy_materialization query_plan_optimize_lazy_materialization
    read_in_order_two_level_merge_threshold read_overflow_mode result_overflow_mode session_timezone
    set_overflow_mode sort_overflow_mode timeout_before_checking_execution_speed timeout_overflow_mode
    totals_mode transform_null_in use_index_for_in_with_subqueries use_query_condition_cache use_skip_indexes
    use_skip_indexes_if_final use_skip_indexes_on_data_read use_text_index_dictionary_cache
    use_text_index_header_cache use_text_index_like_evaluation_by_dictionary_scan use_text_index_postings_cache
    use_uncompressed_cache wait_for_async_insert async_insert
    """
)
"""What readers may set: limits, formats, plans. Nothing that writes, caches answers, reaches out or reads files."""


def _bounds(config: EngineConfig) -> dict[str, float]:
    """Limits that readers may lower, never lift; 0 would mean none."""
    return {
        "max_execution_time": config.reader_max_seconds,
        "max_memory_usage": config.reader_max_memory_bytes,
        "max_threads": max(2, os.cpu_count() or 2),
    }


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def refuse_settings(names: Mapping[str, object]) -> None:
    """Raises ClickHouseError 164 for the first setting that readers may not change."""
    for name in names:
        if name not in READER_SETTINGS:
            raise ClickHouseError(
                READONLY, f"Cannot modify '{name[:80]}' setting in readonly mode: readers may not change it"
            )


def refuse_unbounded(config: EngineConfig, asked: Mapping[str, object]) -> None:
    """Raises ClickHouseError 164 for a SETTINGS clause that lifts a bound; the engine would follow it."""
    for name, bound in _bounds(config).items():
        if name in asked:
            value = _number(asked[name])
            if value is None or not 0 < value <= bound:
                message = f"Cannot set '{name}' to {str(asked[name])[:40]}: for readers 0 < {name} <= {bound:.15g}"
                raise ClickHouseError(READONLY, message)


def reader_settings(
    config: EngineConfig, asked: Mapping[str, str], mark: str, *, readonly: str = "1"
) -> dict[str, str]:
    """Settings of a reader's statement: what it asked for, within the bounds. Raises ClickHouseError 164."""
    refuse_settings(asked)
    settings = {
        "max_threads": str(config.reader_threads),
        "timeout_before_checking_execution_speed": "0",
        **asked,
    }
    for name, bound in _bounds(config).items():
        value = _number(settings.get(name, "0"))
        # What is no number the engine refuses, in better words than ours.
        if value is not None and not 0 < value <= bound:
            settings[name] = f"{bound:.15g}"
    settings |= {
        "os_threads_nice_value_query": str(config.reader_nice),
        "log_comment": mark,
        "readonly": readonly,
    }
    return settings


def writer_settings(asked: Mapping[str, str], mark: str, *, readonly: bool) -> dict[str, str]:
    """Settings of a statement of the writer."""
    return {**asked, "log_comment": mark} | ({"readonly": "2"} if readonly else {})


def insert_settings(asked: Mapping[str, str], mark: str) -> dict[str, str]:
    """Settings of a streamed insert: synchronous, so that the answer means that the rows are in the table."""
    return {**asked, "async_insert": "0", "log_comment": mark}
