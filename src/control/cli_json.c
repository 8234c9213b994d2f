/*
 * JSON forms of options, which become the same flat options as text.
 */
#include "control/cli.h"

#include <string.h>

int cli_json_to_opts(const char *what, const char *json, struct opts *out, struct err *err)
{
	int ret;

	*out = (struct opts){.what = what};
	/* "backing": null means something to a disk, and nothing to anybody else */
	ret = opts_add_json(out, json, !strcmp(what, "-blockdev"), err);
	if (ret) {
		opts_fini(out);
	}
	return ret;
}
