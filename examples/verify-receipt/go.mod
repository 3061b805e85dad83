module authz.example/verify-receipt

go 1.25
