/*
 * JSON forms of options: an object becomes the same flat options as text. The depth is bounded;
 * what has no flat form is refused by name.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "control/cli.h"

static int json_flatten(struct opts *o, const char *prefix, json_t *v, int depth, struct err *err)
{
	char key[256], num[32];
	const char *name, *text = NULL;
	json_t *child;
	int ret = 0;

	if (depth > 8) {
		return err_set(err, EINVAL, "%s: the JSON value is nested too deeply", o->what);
	}
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		json_object_foreach(v, name, child) {
			int n = snprintf(key, sizeof(key), "%s%s%s", prefix, *prefix ? "." : "",
					 name);

			if (n < 0 || (size_t)n >= sizeof(key)) {
				return err_set(err, EINVAL, "%s: the key '%.40s…' is too long",
					       o->what, name);
			}
			ret = json_flatten(o, key, child, depth + 1, err);
			if (ret) {
				return ret;
			}
		}
		return 0;
	case JSON_ARRAY:
		for (size_t i = 0; i < json_array_size(v); i++) {
			snprintf(key, sizeof(key), "%.200s.%zu", prefix, i);
			ret = json_flatten(o, key, json_array_get(v, i), depth + 1, err);
			if (ret) {
				return ret;
			}
		}
		return 0;
	case JSON_STRING:
		text = json_string_value(v);
		break;
	case JSON_INTEGER:
		snprintf(num, sizeof(num), "%lld", (long long)json_integer_value(v));
		text = num;
		break;
	case JSON_TRUE:
		text = "on";
		break;
	case JSON_FALSE:
		text = "off";
		break;
	default:
		return err_set(err, EINVAL, "%s: '%s' has a value of a type that is not supported",
			       o->what, prefix);
	}
	return opts_add(o, prefix, text, err);
}

int cli_json_to_opts(const char *what, const char *json, struct opts *out, struct err *err)
{
	json_error_t je;
	json_t *v = json_loads(json, JSON_REJECT_DUPLICATES, &je);
	int ret;

	*out = (struct opts){.what = what};
	if (!v) {
		return err_set(err, EINVAL, "%s: not valid JSON: %s (column %d)", what, je.text,
			       je.column);
	}
	if (!json_is_object(v)) {
		json_decref(v);
		return err_set(err, EINVAL, "%s: the JSON value must be an object", what);
	}
	ret = json_flatten(out, "", v, 0, err);
	json_decref(v);
	if (ret) {
		opts_fini(out);
	}
	return ret;
}

