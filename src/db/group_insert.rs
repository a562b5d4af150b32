//! One INSERT for any number of rows, whose text never changes.

/// Defines `$query<'a>`, a statement that inserts a slice of `&'a $row` into `$table` from one array for each column.
///
/// diesel builds another text for every number of rows of a batch INSERT and prepares each of them anew. Arrays keep
/// the text the same, and the static query id lets every connection prepare it once.
macro_rules! group_insert {
    ($(#[$doc:meta])* $query:ident($row:ident: $row_type:ty) into $table:literal {
        $($column:ident: $rust_type:ty as $sql_type:ty = $value:expr;)+
    }) => {
        $(#[$doc])*
        struct $query<'a> {
            $($column: Vec<$rust_type>,)+
            rows: std::marker::PhantomData<&'a $row_type>,
        }

        impl<'a> $query<'a> {
            fn new(rows: &[&'a $row_type]) -> Self {
                Self {
                    $($column: rows.iter().map(|$row| $value).collect(),)+
                    rows: std::marker::PhantomData,
                }
            }
        }

        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $query<'_> {
            fn walk_ast<'b>(
                &'b self,
                mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                out.push_sql(concat!("INSERT INTO ", $table, " ("));
                let mut separator = "";
                for column in [$(stringify!($column)),+] {
                    out.push_sql(separator);
                    out.push_identifier(column)?;
                    separator = ", ";
                }
                // Not FROM unnest(…, …), which writes each array into a store of its own before the first row is made.
                out.push_sql(") SELECT unnest(");
                let mut separators = std::iter::once("").chain(std::iter::repeat("), unnest("));
                $(
                    out.push_sql(separators.next().unwrap_or_default());
                    out.push_bind_param::<diesel::sql_types::Array<$sql_type>, _>(&self.$column)?;
                )+
                out.push_sql(")");
                Ok(())
            }
        }

        impl diesel::query_builder::QueryId for $query<'_> {
            type QueryId = $query<'static>;
            const HAS_STATIC_QUERY_ID: bool = true;
        }
    };
}

pub(super) use group_insert;
