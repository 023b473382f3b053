-- Mistakes in the configuration and on the command line: one line each, with place and nearest known name, exit 2.

local nested = require("nested")

-- Runs in a directory whose provium.toml is this text, and expects nothing but one line on stderr.
local function refused(t, toml, flags, ...)
	local dir = nested.suite(t, 'test("never", function() error("it ran") end)')
	nested.write(dir .. "/provium.toml", toml)
	local r = nested.start(dir, flags):join(30)
	t:assert_eq(r.how, "exit")
	t:assert_eq(r.status, 2, r.out .. r.err)
	t:assert_eq(r.out, "")
	t:assert_match(r.err, "^provium: [^\n]+\n$", "one line")
	for _, text in ipairs({ ... }) do
		t:assert_contains(r.err, text)
	end
end

local GOOD = '[profiles.guest]\nkernel = "k"\ncmdline = "quiet"\n'

test("TOML that does not parse", function(t)
	refused(t, '[provium]\nroots = ["."\n', "", "parse `provium.toml`: line 3, column 1: expected `,` or `]`")
end)

test("unknown keys and tables", function(t)
	refused(t, '[provium]\nroot = ["."]\n', "",
		"invalid config in `provium.toml`: line 2, column 1: unknown key `root` in `provium`; did you mean `roots`?")
	refused(t, '[provum]\nroots = ["."]\n', "", "line 1, column 2: unknown key `provum`; did you mean `provium`?")
	refused(t, '[profiles.a]\nkernal = "k"\ncmdline = "q"\n', "",
		"line 2, column 1: unknown key `kernal` in `profiles.a`; did you mean `kernel`?")
end)

test("values that cannot be", function(t)
	refused(t, '[profiles.a]\nkernel = "k"\n', "", "the profile `a` needs `cmdline` or `cmdline_file`")
	refused(t, '[profiles.a]\nkernel = 3\ncmdline = "q"\n', "",
		"line 2, column 1: `profiles.a.kernel` must be a string, not an integer")
	refused(t, GOOD .. 'memory = "12Q"\n', "", "line 4, column 1: `profiles.guest.memory`: `12Q` is no valid size")
	refused(t, GOOD .. 'machine = "pcc"\n', "", "`profiles.guest.machine`: `pcc` is not known; did you mean `pc`?")
	refused(t, '[provium]\nroots = ["nowhere"]\n', "", "/nowhere`: No such file or directory")
end)

test("unknown flags and values", function(t)
	refused(t, GOOD, "--jbos 2", "unknown flag `--jbos`; did you mean `--jobs`?")
	refused(t, GOOD, "-x", "unknown flag `-x`; `provium --help` lists the flags")
	refused(t, GOOD, "--jobs", "--jobs needs a value: --jobs N")
	refused(t, GOOD, "--jobs 0", "--jobs: `0` is not a count")
	refused(t, GOOD, "--vmm quemu", "--vmm: `quemu` is not known, use qemu or local; did you mean `qemu`?")
	refused(t, GOOD, "--timeout 1y", "--timeout: `1y` is no valid duration")
	refused(t, GOOD, "--mem 0", "--mem: `0` leaves no memory for any VM")
	refused(t, GOOD, "-v -q", "-v and -q exclude each other")
	refused(t, GOOD, "list --jobs 2", "--jobs does not belong to provium list")
	refused(t, GOOD, "help lsit", "there is no command `lsit`; did you mean `list`?")
end)

test("paths and profiles that are not there", function(t)
	refused(t, GOOD, "nowhere", "`nowhere`: No such file or directory")
	refused(t, GOOD, "--config nowhere.toml", "read `nowhere.toml`: No such file or directory")
	refused(t, GOOD, "prepare gest", "no profile named `gest`, did you mean `guest`?")
end)

test("an unknown profile in a test names the nearest, and only that file fails", function(t)
	local r = nested.run(t, {
		["a.test.lua"] = 'provium:vm("a", "gest")',
		["b.test.lua"] = 'test("fine", function() end)',
	}, "-v --vmm local")
	t:assert_eq(r.status, 1, r.err)
	t:assert_contains(r.out, "a.test.lua:1: vm `a`: no profile named `gest`, did you mean `guest`? (known: ")
	t:assert_contains(r.out, "PASS b.test.lua (1 passed, 0 failed, 0 skipped)")
end)
