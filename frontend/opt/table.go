package opt

// Passes is the table. TestOrder checks what it can of the reasons.
var Passes = []Pass{
	{
		Name:  "dead-stages",
		Doc:   "leave out stages that the target does not need",
		Order: "first: no other pass should spend thought, or remarks, on what is not built",
		Keeps: Image,
		Run:   deadStages,
	},
}
