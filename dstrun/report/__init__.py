"""From records to rows, tables and figures. Reads files only; never torch."""
