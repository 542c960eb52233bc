/*
 * unit_status.c
 *	  Checks which status of HTTP an SQLSTATE is answered with: base/http_status.h.
 */
#include "unit.h"

#include "base/http_status.h"

void
test_status(void)
{
	static const struct
	{
		const char *sqlstate;
		int			status;
	} cases[] = {
		{"22023", 400}, {"22P02", 400}, {"23502", 400}, {"23514", 400},	 {"0A000", 400},
		{"P0001", 400}, {"28000", 401}, {"42501", 403}, {"42704", 404},	 {"FLS05", 405},
		{"23503", 409}, {"23505", 409}, {"42710", 409}, {"55000", 409},	 {"55006", 409},
		{"FLS12", 412}, {"54000", 413}, {"38000", 502}, {"08006", 503},	 {"25006", 503},
		{"40001", 503}, {"53300", 503}, {"55P03", 503}, {"57014", 503},	 {"58030", 503},
		{"XX000", 500}, {"23000", 500}, {"55P02", 500}, {"F0000", 500},	 {"42P01", 500},
		{"FLS99", 500}, {"", 500},		{"22", 500},	{"220233", 500}, {NULL, 500},
	};

	for (int i = 0; i < lengthof(cases); i++)
		is_int(http_status_of_sqlstate(cases[i].sqlstate), cases[i].status,
			   cases[i].sqlstate ? cases[i].sqlstate : "no SQLSTATE");
}
