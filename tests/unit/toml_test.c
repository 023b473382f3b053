/*
 * lua/toml.lua.
 */
#include "luacases.h"

int main(void)
{
	return luacases_run("toml_cases.lua");
}
