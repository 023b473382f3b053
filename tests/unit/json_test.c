/*
 * json and msgpack.
 */
#include "luacases.h"

int main(void)
{
	return luacases_run("json_cases.lua");
}
